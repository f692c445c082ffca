//! One image's requests to its registry.

use std::fs::File;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use super::RegistryError;
use super::credentials::Credentials;
use crate::adapters::images::blobs::{BlobError, Blobs, MOST_DOCUMENT, blocking, check, check_parts, measure};
use crate::domain::image::{Challenge, Descriptor, Digest, Document, Reference, is_loopback};
use crate::telemetry::transport_cause;

const MOST_REDIRECTS: usize = 5;
/// The largest answer with a token.
const MOST_TOKEN: u64 = 64 << 10;
const CONTENT_DIGEST: &str = "docker-content-digest";

/// The hosts that may speak plain HTTP: this one, and those that the operator names.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct PlainHosts(pub(in super::super) Vec<String>);

impl PlainHosts {
    fn hold(&self, authority: &str) -> bool {
        is_loopback(authority) || self.0.iter().any(|host| host == authority)
    }
}

/// A registry, one repository of it, and the rights that were got for it.
pub(in super::super) struct Session {
    client: Client,
    reference: Reference,
    plain: PlainHosts,
    credentials: Option<Credentials>,
    rights: tokio::sync::Mutex<Option<HeaderValue>>,
    /// Where blobs are kept; one that lies there under its own name was checked.
    dir: PathBuf,
}

/// The process's allocator wipes what is freed.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Session {
    /// `client` follows no redirects by itself. `dir`: an existing directory for layers.
    pub(in super::super) fn new(
        client: Client,
        reference: Reference,
        plain: PlainHosts,
        credentials: Option<Credentials>,
        dir: PathBuf,
    ) -> Self {
        Self { client, reference, plain, credentials, rights: tokio::sync::Mutex::new(None), dir }
    }

    /// The index or manifest that the reference stands for now, checked by the reference's own digest where it has one.
    ///
    /// # Errors
    /// What the registry did instead.
    pub(in super::super) async fn top(&self) -> Result<Vec<u8>, BlobError> {
        let name = self.reference.manifest();
        let response = self.get(&format!("manifests/{name}"), &format!("the manifest {name}")).await?;
        let told = response.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = self.body(response, MOST_DOCUMENT).await?;
        let is = Digest::of_bytes(&Sha256::digest(&bytes));
        match self.reference.digest() {
            Some(wanted) if *wanted != is => return Err(BlobError::Digest(wanted.clone(), is)),
            _ => {}
        }
        if let Some(told) = told.filter(|told| told.starts_with("sha256:") && *told != is.to_string()) {
            let told: String = told.chars().take(80).collect();
            return Err(RegistryError::Manifest { host: self.host(), told, is: is.to_string() }.into());
        }
        Ok(bytes)
    }

    fn host(&self) -> String {
        self.reference.authority().to_owned()
    }

    fn url(&self, rest: &str) -> Result<Url, RegistryError> {
        let (authority, repository) = (self.reference.authority(), self.reference.repository());
        let scheme = if self.plain.hold(authority) { "http" } else { "https" };
        let url = format!("{scheme}://{authority}/v2/{repository}/{rest}");
        Url::parse(&url).map_err(|_| RegistryError::Redirects(self.host()))
    }

    /// A good answer; `what` names it in an error.
    async fn get(&self, rest: &str, what: &str) -> Result<Response, RegistryError> {
        let url = self.url(rest)?;
        let first = self.follow(url.clone()).await?;
        let response = if first.status() == StatusCode::UNAUTHORIZED {
            self.gain_rights(&first).await?;
            self.follow(url).await?
        } else {
            first
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let host = host_of(response.url());
        Err(RegistryError::Status { host, status: response.status().as_u16(), what: what.to_owned() })
    }

    /// The rights go to the registry itself, and to nobody that it redirects to.
    async fn follow(&self, mut url: Url) -> Result<Response, RegistryError> {
        let home = url.origin();
        for _ in 0..=MOST_REDIRECTS {
            let mut headers = HeaderMap::new();
            if let Ok(accepted) = HeaderValue::from_str(&Document::accepted()) {
                headers.insert(ACCEPT, accepted);
            }
            if url.origin() == home
                && let Some(rights) = self.rights.lock().await.clone()
            {
                headers.insert(AUTHORIZATION, rights);
            }
            let response = self.send(url.clone(), headers).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            url = next.ok_or_else(|| RegistryError::Redirects(host_of(&url)))?;
            self.admit(&url)?;
        }
        Err(RegistryError::Redirects(self.host()))
    }

    /// Whether a registry may send us there: no way leads from TLS to plain HTTP.
    fn admit(&self, url: &Url) -> Result<(), RegistryError> {
        let both_plain =
            url.scheme() == "http" && self.plain.hold(self.reference.authority()) && self.plain.hold(&host_of(url));
        let admitted = url.scheme() == "https" || both_plain;
        if admitted { Ok(()) } else { Err(RegistryError::Plain(self.host())) }
    }

    async fn send(&self, url: Url, headers: HeaderMap) -> Result<Response, RegistryError> {
        let host = host_of(&url);
        let sent = self.client.get(url).headers(headers).send().await;
        sent.map_err(|error| RegistryError::Unreachable { host, cause: transport_cause(&error) })
    }

    async fn gain_rights(&self, refused: &Response) -> Result<(), RegistryError> {
        let headers = refused.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<Challenge> = headers.filter_map(|value| Challenge::read(value.to_str().ok()?)).collect();
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        let rights = match (bearer, &self.credentials) {
            (Some((realm, service, scope)), _) => Some(self.token(realm, service.as_deref(), scope.as_deref()).await?),
            (None, Some(credentials)) if challenges.contains(&Challenge::Basic) => {
                let mut headers = HeaderMap::new();
                credentials.show(&mut headers);
                headers.remove(AUTHORIZATION)
            }
            // Whoever asks again without anything new hears the same; that answer is then told.
            (None, None) if challenges.contains(&Challenge::Basic) => None,
            (None, _) => return Err(RegistryError::Challenge(self.host())),
        };
        *self.rights.lock().await = rights;
        Ok(())
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<HeaderValue, RegistryError> {
        let mut url = Url::parse(realm).map_err(|_| RegistryError::Challenge(self.host()))?;
        self.admit(&url)?;
        let pull = format!("repository:{}:pull", self.reference.repository());
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", scope.unwrap_or(&pull));
        }
        let mut headers = HeaderMap::new();
        if let Some(credentials) = &self.credentials {
            credentials.show(&mut headers);
        }
        let host = host_of(&url);
        let response = self.send(url, headers).await?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            return Err(RegistryError::Status { host, status, what: "a token".to_owned() });
        }
        let bytes = self.body(response, MOST_TOKEN).await?;
        let none = || RegistryError::Token(host.clone());
        let Token { token, access_token } = serde_json::from_slice(&bytes).map_err(|_| none())?;
        let token = token.or(access_token).ok_or_else(none)?;
        let mut rights = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| none())?;
        rights.set_sensitive(true);
        Ok(rights)
    }

    async fn body(&self, mut response: Response, most: u64) -> Result<Vec<u8>, RegistryError> {
        let host = host_of(response.url());
        let mut bytes = Vec::new();
        while let Some(piece) = piece(&mut response, &host).await? {
            if (bytes.len() + piece.len()) as u64 > most {
                return Err(RegistryError::Large { host, most });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    async fn document(&self, folder: &str, wanted: &Descriptor) -> Result<Vec<u8>, BlobError> {
        let name = wanted.digest.to_string();
        let response = self.get(&format!("{folder}/{name}"), &name).await?;
        let bytes = self.body(response, MOST_DOCUMENT).await?;
        check(&bytes, wanted)?;
        Ok(bytes)
    }

    /// Streams a blob to `path`, bounded by its descriptor, and checks it.
    async fn download(&self, wanted: &Descriptor, path: &Path) -> Result<(), BlobError> {
        let name = wanted.digest.to_string();
        let mut response = self.get(&format!("blobs/{name}"), &format!("the layer {name}")).await?;
        let host = host_of(response.url());
        let disk = RegistryError::Disk;
        let mut file = tokio::fs::File::create(path).await.map_err(disk)?;
        let (mut hash, mut size) = (Sha256::new(), 0_u64);
        while let Some(piece) = piece(&mut response, &host).await? {
            size += piece.len() as u64;
            if size > wanted.size {
                return Err(RegistryError::Large { host, most: wanted.size }.into());
            }
            hash.update(&piece);
            file.write_all(&piece).await.map_err(disk)?;
        }
        file.flush().await.map_err(disk)?;
        check_parts(size, &Digest::of_bytes(&hash.finalize()), wanted)
    }
}

#[async_trait]
impl Blobs for Session {
    async fn manifest(&self, wanted: &Descriptor) -> Result<Vec<u8>, BlobError> {
        self.document("manifests", wanted).await
    }

    async fn config(&self, wanted: &Descriptor) -> Result<Vec<u8>, BlobError> {
        self.document("blobs", wanted).await
    }

    async fn layer(&self, wanted: &Descriptor) -> Result<File, BlobError> {
        let path = self.dir.join(wanted.digest.hex());
        if !path.exists() {
            let draft = path.with_extension("draft");
            self.download(wanted, &draft).await?;
            tokio::fs::rename(&draft, &path).await.map_err(BlobError::Disk)?;
            return blocking(move || File::open(&path).map_err(BlobError::Disk)).await;
        }
        // Kept since an earlier try.
        let wanted = wanted.clone();
        blocking(move || {
            let mut file = File::open(&path).map_err(BlobError::Disk)?;
            let (size, digest) = measure(&mut file, wanted.size).map_err(BlobError::Disk)?;
            check_parts(size, &digest, &wanted)?;
            Ok(file)
        })
        .await
    }
}

async fn piece(response: &mut Response, host: &str) -> Result<Option<bytes::Bytes>, RegistryError> {
    let failed =
        |error: reqwest::Error| RegistryError::Unreachable { host: host.to_owned(), cause: transport_cause(&error) };
    response.chunk().await.map_err(failed)
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
