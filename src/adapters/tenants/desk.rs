//! Changes of tenants and tokens: into the store, then into the memory that answers.

use std::collections::BTreeMap;

use async_trait::async_trait;
use slog::info;

use super::{Known, TenantRegistry, digest};
use crate::domain::quota::{Allowance, Usage};
use crate::domain::tenant::{MAX_LIFE, Tenant, TenantName, TenantView, Token, TokenId, TokenOrder};
use crate::ports::store::StoreError;
use crate::ports::tenant_store::Holding;
use crate::ports::tenants::{NewToken, TenantDesk, TenantsError};

/// All of them are held in memory.
const MOST_TENANTS: usize = 1_000;
const MOST_TOKENS: usize = 10_000;

impl TenantRegistry {
    async fn holdings(&self) -> Result<BTreeMap<TenantName, Holding>, StoreError> {
        let holdings = self.store.holdings().await?;
        Ok(holdings.into_iter().map(|holding| (holding.tenant.clone(), holding)).collect())
    }

    fn view(&self, name: &TenantName, holding: Option<&Holding>) -> Option<TenantView> {
        let state = self.state();
        let known = state.tenants.get(name)?;
        let (calls, cpu) = state.ledger.of(name, self.clock.wall());
        Some(TenantView {
            tenant: known.tenant.clone(),
            quotas: known.quotas,
            usage: Usage {
                environments: holding.map_or(0, |holding| holding.environments),
                storage_bytes: holding.map_or(0, |holding| holding.bytes),
                calls,
                cpu,
            },
            tokens: state.tokens.values().filter(|(token, _)| token.tenant == *name).count(),
        })
    }
}

#[async_trait]
impl TenantDesk for TenantRegistry {
    async fn tenants(&self) -> Result<Vec<TenantView>, TenantsError> {
        let holdings = self.holdings().await?;
        let names: Vec<TenantName> = self.state().tenants.keys().cloned().collect();
        Ok(names.iter().filter_map(|name| self.view(name, holdings.get(name))).collect())
    }

    async fn set_tenant(&self, name: TenantName, given: Allowance, anew: bool) -> Result<TenantView, TenantsError> {
        let _one_at_a_time = self.changing.lock().await;
        let (present, many) = {
            let state = self.state();
            (state.tenants.get(&name).map(|known| known.tenant.clone()), state.tenants.len())
        };
        if present.is_none() && many >= MOST_TENANTS {
            return Err(TenantsError::TooManyTenants(many));
        }
        let mut tenant = present.unwrap_or_else(|| Tenant {
            name: name.clone(),
            created_at: self.clock.wall(),
            allowance: Allowance::default(),
        });
        tenant.allowance = if anew { given } else { given.over(tenant.allowance) };
        let quotas = tenant.allowance.over(self.defaults).quotas()?;
        self.store.write_tenant(&tenant).await?;
        self.state().tenants.insert(name.clone(), Known { tenant, quotas });
        info!(self.log, "tenant.set"; "tenant" => name.as_str());
        let holdings = self.holdings().await?;
        self.view(&name, holdings.get(&name)).ok_or(TenantsError::NoTenant(name))
    }

    fn tokens(&self) -> Vec<Token> {
        let mut tokens: Vec<Token> = self.state().tokens.values().map(|(token, _)| token.clone()).collect();
        tokens.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        tokens
    }

    async fn make_token(&self, order: TokenOrder) -> Result<NewToken, TenantsError> {
        let _one_at_a_time = self.changing.lock().await;
        let (is_known, many) = {
            let state = self.state();
            (state.tenants.contains_key(&order.tenant), state.tokens.len())
        };
        if !is_known {
            return Err(TenantsError::NoTenant(order.tenant));
        }
        if many >= MOST_TOKENS {
            return Err(TenantsError::TooManyTokens(many));
        }
        if order.lives.is_some_and(|span| span > MAX_LIFE) {
            return Err(TenantsError::LivesTooLong);
        }
        let no_random = |error: getrandom::Error| TenantsError::Random(Box::new(error));
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(no_random)?;
        let id = TokenId::of_bits(getrandom::u64().map_err(no_random)?);
        let text = id.text(&crate::domain::base64::url_safe(&secret));
        let now = self.clock.wall();
        let token = Token {
            id,
            tenant: order.tenant,
            scopes: order.scopes,
            created_at: now,
            expires_at: order.lives.map(|span| now.plus_seconds(span.as_secs())),
        };
        let digest = digest(&text);
        self.store.insert_token(&token, &digest).await?;
        self.state().tokens.insert(token.id.clone(), (token.clone(), digest));
        info!(self.log, "token.created"; "tenant" => token.tenant.as_str(), "token" => token.id.as_str(),
            "scopes" => token.scopes.to_string());
        Ok(NewToken { token, text })
    }

    async fn revoke_token(&self, id: &TokenId) -> Result<bool, TenantsError> {
        let _one_at_a_time = self.changing.lock().await;
        let deleted = self.store.delete_token(id).await?;
        let known = self.state().tokens.remove(id);
        if let Some((token, _)) = &known {
            info!(self.log, "token.revoked"; "tenant" => token.tenant.as_str(), "token" => id.as_str());
        }
        Ok(deleted || known.is_some())
    }
}
