//! What is put into a sandbox's requests: values in place of their placeholders, and the daemon's own headers.

use std::io;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::authority::Authority;
use super::request::HEAD;
use crate::domain::credential::{self, Credential, CredentialName, Placeholder, put_in, put_into_basic, take_out};
use crate::domain::egress::{Destination, Refusal, Rule};
use crate::ports::credentials::Credentials;
use crate::ports::egress::Passage;

pub(super) struct Additions {
    placeholders: Vec<(CredentialName, Placeholder)>,
    headers: Vec<(Rule, HeaderName, HeaderValue, bool)>,
    credentials: Arc<dyn Credentials>,
    authority: Option<Authority>,
}

/// What became of the placeholders in one request.
#[derive(Default)]
pub(super) struct Exchange {
    put: Vec<(Placeholder, Credential)>,
    /// Each with the reason.
    pub withheld: Vec<(CredentialName, &'static str)>,
}

impl Additions {
    /// Of what a way out was opened with. An authority is made where TLS may have to be ended.
    pub(super) fn of(passage: Passage, credentials: Arc<dyn Credentials>) -> io::Result<Self> {
        let Passage { placeholders, headers, .. } = passage;
        let headers = headers.into_iter().map(|header| {
            let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(io::Error::other)?;
            let mut value = HeaderValue::from_bytes(header.value.bytes()).map_err(io::Error::other)?;
            value.set_sensitive(true);
            Ok((header.rule, name, value, header.in_clear))
        });
        let headers = headers.collect::<io::Result<Vec<_>>>()?;
        let needed = !placeholders.is_empty() || !headers.is_empty();
        let authority = needed.then(Authority::make).transpose().map_err(io::Error::other)?;
        Ok(Self { placeholders, headers, credentials, authority })
    }

    /// The certificate that the sandbox must trust.
    pub(super) fn pem(&self) -> Option<String> {
        self.authority.as_ref().map(Authority::pem)
    }

    /// Who ends TLS to there; None where it goes through as it is, for nothing is put in.
    pub(super) fn authority_for(&self, to: &Destination) -> Option<&Authority> {
        let may_go = |(name, _): &(CredentialName, Placeholder)| {
            self.credentials.hosts(name).is_some_and(|hosts| credential::may_go(&hosts, to, false))
        };
        let needed = self.headers.iter().any(|(rule, ..)| rule.admits(to)) || self.placeholders.iter().any(may_go);
        self.authority.as_ref().filter(|_| needed)
    }

    /// Puts in what may go there. `in_clear`: the request goes on without TLS.
    ///
    /// # Errors
    /// `HeadTooLarge` when it is, or the values make it so.
    pub(super) fn put_in(
        &self,
        headers: &mut HeaderMap,
        to: &Destination,
        in_clear: bool,
    ) -> Result<Exchange, Refusal> {
        let mut exchange = Exchange::default();
        let mut length: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if length > HEAD {
            return Err(Refusal::HeadTooLarge);
        }
        for (header, value) in headers.iter_mut().filter(|(_, value)| Placeholder::may_be_in(value.as_bytes())) {
            let before = value.len();
            self.exchange(header, value, to, in_clear, &mut exchange);
            length = length - before + value.len();
            if length > HEAD {
                return Err(Refusal::HeadTooLarge);
            }
        }
        for (rule, name, value, may_be_in_clear) in &self.headers {
            if rule.admits(to) && (*may_be_in_clear || !in_clear) {
                headers.insert(name, value.clone());
            }
        }
        Ok(exchange)
    }

    fn exchange(
        &self,
        header: &HeaderName,
        value: &mut HeaderValue,
        to: &Destination,
        in_clear: bool,
        into: &mut Exchange,
    ) {
        for (name, placeholder) in &self.placeholders {
            let made_with = |secret: &[u8]| {
                let basic =
                    || put_into_basic(value.as_bytes(), placeholder, secret).filter(|_| *header == AUTHORIZATION);
                put_in(value.as_bytes(), placeholder, secret).or_else(basic)
            };
            if made_with(&[]).is_none() {
                continue;
            }
            match self.value_for(name, to, in_clear) {
                Err(reason) => into.withheld.push((name.clone(), reason)),
                Ok(credential) => {
                    let made = made_with(credential.value.bytes());
                    if let Some(Ok(mut made)) = made.map(|bytes| HeaderValue::from_bytes(&bytes)) {
                        made.set_sensitive(true);
                        *value = made;
                        into.put.push((placeholder.clone(), credential));
                    }
                }
            }
        }
    }

    fn value_for(&self, name: &CredentialName, to: &Destination, in_clear: bool) -> Result<Credential, &'static str> {
        let hosts = self.credentials.hosts(name).ok_or("removed")?;
        if !credential::may_go(&hosts, to, false) {
            return Err("not_its_host");
        }
        if !credential::may_go(&hosts, to, in_clear) {
            return Err("in_clear");
        }
        self.credentials.open(name).ok_or("unreadable")
    }
}

impl Exchange {
    /// The secrets that were put in.
    pub(super) fn names(&self) -> impl Iterator<Item = &CredentialName> {
        self.put.iter().map(|(_, credential)| &credential.name)
    }

    /// Takes what was put in out of an answer's headers, where the server tells it back word by word.
    pub(super) fn take_out(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            for (placeholder, credential) in &self.put {
                let taken = take_out(value.as_bytes(), placeholder, credential.value.bytes());
                if let Some(Ok(taken)) = taken.map(|bytes| HeaderValue::from_bytes(&bytes)) {
                    *value = taken;
                }
            }
        }
    }
}
