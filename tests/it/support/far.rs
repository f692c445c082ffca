//! Servers that sandboxes reach through the proxy: a web server in clear and in TLS that tells what it was sent, and one for
//! WebSockets. They end with the test.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_async;

/// What a server was sent, request by request: the head and what came with it. Of WebSockets, each message.
pub type Seen = Arc<Mutex<Vec<String>>>;

pub struct Far {
    pub port: u16,
    pub seen: Seen,
}

impl Far {
    /// What was sent since the last look.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// A certificate for this host's loopback, and a file that makes a daemon trust it (`SSL_CERT_FILE`).
pub struct Certified {
    config: Arc<ServerConfig>,
    pub file: PathBuf,
}

impl Certified {
    pub fn in_folder(folder: &Path) -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let base64 = data(cert.der());
        let file = folder.join("roots.pem");
        std::fs::write(&file, format!("-----BEGIN CERTIFICATE-----\n{base64}-----END CERTIFICATE-----\n")).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let config = builder.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key.into()).unwrap();
        Self { config: Arc::new(config), file }
    }
}

fn data(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    text.as_bytes().chunks(64).map(|line| format!("{}\n", std::str::from_utf8(line).unwrap())).collect()
}

/// `/to?URL` redirects there; everything else is a page that tells the key it was sent in a header, and not in its text.
pub async fn web(tls: Option<&Certified>) -> Far {
    listen(tls, |stream, seen| Box::pin(page(stream, seen))).await
}

/// Sends each message back.
pub async fn websockets(tls: Option<&Certified>) -> Far {
    listen(tls, |stream, seen| Box::pin(echo(stream, seen))).await
}

/// Ends TLS before a server of this host that speaks none. Returns its port.
pub async fn front(certified: &Certified, to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, acceptor) = (listener.local_addr().unwrap().port(), TlsAcceptor::from(Arc::clone(&certified.config)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(stream).await else { return };
                let mut far = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let _either_end_left = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    port
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

type Served = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn listen(tls: Option<&Certified>, serve: fn(Box<dyn Stream>, Seen) -> Served) -> Far {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), Seen::default());
    let acceptor = tls.map(|certified| TlsAcceptor::from(Arc::clone(&certified.config)));
    let told = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, told) = (acceptor.clone(), Arc::clone(&told));
            tokio::spawn(async move {
                match acceptor {
                    None => serve(Box::new(stream), told).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve(Box::new(stream), told).await;
                        }
                    }
                }
            });
        }
    });
    Far { port, seen }
}

async fn page(mut stream: Box<dyn Stream>, seen: Seen) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(read @ 1..) => request.extend_from_slice(&piece[..read]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let key = request.lines().find_map(|line| line.strip_prefix("x-key: ")).unwrap_or("none").to_owned();
    seen.lock().unwrap().push(request);
    let answer = match path.split_once("/to?") {
        Some((_, url)) => format!("HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n"),
        None => format!("HTTP/1.1 200 OK\r\nX-Echo: {key}\r\nContent-Length: 6\r\n\r\nserved"),
    };
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.shutdown().await);
}

async fn echo(stream: Box<dyn Stream>, seen: Seen) {
    let Ok(mut socket) = accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if let Ok(text) = message.to_text()
            && !message.is_close()
        {
            seen.lock().unwrap().push(text.to_owned());
            drop(socket.send(message.clone()).await);
        }
    }
}
