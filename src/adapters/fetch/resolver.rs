//! Names to addresses, and only to those that are public. The client connects to what is returned here and asks nobody
//! again, so a name cannot change its mind between the check and the connection.

use std::error::Error;
use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::domain::egress::Reach;

/// A name leads to no address that may be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name leads to no public address")]
pub(super) struct NotPublic;

impl NotPublic {
    /// Whether this is what is behind an error.
    pub(super) fn is_behind(error: &reqwest::Error) -> bool {
        let mut cause: Option<&(dyn Error + 'static)> = error.source();
        while let Some(found) = cause {
            if found.is::<NotPublic>() {
                return true;
            }
            cause = found.source();
        }
        false
    }
}

/// The host's resolver behind the guard.
pub(super) struct GuardedResolver(pub(super) Reach);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let admitted: Vec<SocketAddr> = found.into_iter().filter(|address| reach.admits(address.ip())).collect();
            if admitted.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(admitted.into_iter()) as Addrs)
        })
    }
}
