//! Which scope each route needs. What is not in the table is the operator's: a route that somebody adds is closed to
//! tenants until it is here, and until it looks at whose things it touches.

use actix_web::http::Method;

use crate::api::error::ApiError;
use crate::api::{accepted, environments, jobs};
use crate::domain::tenant::{Caller, Scope};

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    One(Scope),
    /// The operator's own token.
    Operator,
}

/// Whether a caller may ask for a route; `pattern` as it was registered, none for a path that is no route.
///
/// # Errors
/// With the scope that is missing.
pub fn check(caller: &Caller, method: &Method, pattern: Option<&str>) -> Result<(), ApiError> {
    match need(method.as_str(), pattern) {
        Need::Nothing => Ok(()),
        Need::One(scope) if caller.scopes.hold(scope) => Ok(()),
        Need::One(scope) => Err(ApiError::Scope(scope)),
        Need::Operator if caller.is_operator() => Ok(()),
        Need::Operator => Err(ApiError::NotTheOperator),
    }
}

fn need(method: &str, pattern: Option<&str>) -> Need {
    let Some(pattern) = pattern else { return Need::Nothing };
    let scope = match (method, pattern) {
        (_, environments::HEALTH) => return Need::Nothing,
        ("GET", "/environments" | "/environments/{id}" | "/environments/{id}/executions") => Scope::EnvironmentsRead,
        ("POST", "/environments/setup" | "/environments/{id}/clone")
        | ("PUT", "/environments/{id}/modules")
        | ("DELETE" | "PATCH", "/environments/{id}") => Scope::EnvironmentsWrite,
        ("POST", "/environments/{id}/execute") | ("GET", "/executions" | accepted::ONE) | ("DELETE", accepted::ONE) => {
            Scope::Execute
        }
        ("POST", "/v2/{endpoint}/run" | "/v2/{endpoint}/runsync" | "/v2/{endpoint}/cancel/{id}") => Scope::JobsSubmit,
        ("GET" | "POST", jobs::STATUS | "/v2/{endpoint}/status-sync/{id}" | "/v2/{endpoint}/stream/{id}")
        | ("GET", "/v2/{endpoint}/health") => Scope::JobsRead,
        _ => return Need::Operator,
    };
    Need::One(scope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tenant::{Scopes, TenantName, TokenId};

    fn caller(scopes: &str) -> Caller {
        let scopes: Scopes = scopes.parse().unwrap();
        Caller { tenant: "acme".parse::<TenantName>().unwrap(), scopes, token: Some(TokenId::of_bits(1)) }
    }

    #[test]
    fn a_route_that_is_not_in_the_table_is_the_operators() {
        let pattern = Some("/environments/{id}/something-new");
        for method in [Method::GET, Method::POST, Method::PATCH] {
            assert!(matches!(check(&caller("all"), &method, pattern), Err(ApiError::NotTheOperator)));
            assert!(check(&Caller::operator(), &method, pattern).is_ok());
        }
        assert!(check(&caller("all"), &Method::PUT, Some("/environments/{id}")).is_err(), "nor a method");
    }

    #[test]
    fn a_scope_opens_its_own_routes_only() {
        let reader = caller("environments:read");
        assert!(check(&reader, &Method::GET, Some("/environments/{id}")).is_ok());
        let refused = check(&reader, &Method::DELETE, Some("/environments/{id}"));
        assert!(matches!(refused, Err(ApiError::Scope(Scope::EnvironmentsWrite))));
        assert!(check(&reader, &Method::POST, None).is_ok(), "it is not found, whoever asks");
        assert!(check(&reader, &Method::GET, Some("/health")).is_ok());
    }
}
