//! The health door: HTTP on a Unix socket, so that nothing but this host can ask.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::rt::time::timeout;
use actix_web::{App, HttpServer, web};
use tokio::net::UnixStream;

use crate::api::server::{DoorError, no_route};
use crate::api::{Doors, desk, health};

/// Owner and group may ask how the daemon is; tenants and tokens are the owner's and root's ([`desk`]). Not everybody: reasons name paths, hosts and limits, and no sandboxed or foreign user of
/// the host needs those. Whoever runs probes is put into the daemon's group.
const MODE: u32 = 0o660;
/// A daemon that does not even take a connection for this long is still a daemon.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// The open health door.
pub struct HealthDoor {
    /// Runs when it is awaited or spawned.
    pub server: Server,
    /// Removes the socket's file when it is dropped; keep it until the server has stopped.
    pub file: SocketFile,
}

/// Opens the health door. A dead daemon's socket is replaced, its folder is made when there is none.
///
/// # Errors
/// `AnotherDaemon` when somebody answers there, `NotASocket` when something else has the name, `Socket` when the file
/// system refuses.
pub async fn serve_health(doors: Arc<Doors>, path: &Path) -> Result<HealthDoor, DoorError> {
    let failed = |action| move |source| DoorError::Socket { action, path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed("make the folder of"))?;
    }
    refuse_if_taken(path).await?;
    let (listener, file) = bind(path).map_err(failed("listen on"))?;
    let owner = desk::Owner(file.owner);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::from(Arc::clone(&doors)))
            .app_data(owner)
            .configure(health::routes)
            .configure(desk::routes)
            .default_service(web::to(no_route))
    })
    .workers(1)
    .on_connect(desk::greet)
    .max_connections(64)
    .shutdown_timeout(1)
    .disable_signals()
    .listen_uds(listener)
    .map_err(failed("listen on"))?;
    Ok(HealthDoor { server: server.run(), file })
}

async fn refuse_if_taken(path: &Path) -> Result<(), DoorError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(DoorError::Socket { action: "look at", path: path.to_owned(), source });
        }
        Ok(found) if !found.file_type().is_socket() => return Err(DoorError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match timeout(CONNECT_WITHIN, UnixStream::connect(path)).await {
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(()),
        Ok(Err(source)) if source.kind() == ErrorKind::PermissionDenied => {
            Err(DoorError::Socket { action: "ask", path: path.to_owned(), source })
        }
        // It answers, or it is too busy to.
        Ok(_) | Err(_) => Err(DoorError::AnotherDaemon(path.to_owned())),
    }
}

/// Binds under a name of its own, sets the mode, and moves the socket into place: nobody sees it with a wider mode, and
/// a stale one is replaced in one step.
fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let provisional = PathBuf::from(name);
    match fs::remove_file(&provisional) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&provisional)?;
    let placed = fs::set_permissions(&provisional, Permissions::from_mode(MODE))
        .and_then(|()| fs::rename(&provisional, path))
        .and_then(|()| fs::symlink_metadata(path));
    match placed {
        Ok(found) => Ok((listener, SocketFile { path: path.to_owned(), mark: mark(&found), owner: found.uid() })),
        Err(error) => {
            let _ = fs::remove_file(&provisional);
            Err(error)
        }
    }
}

/// The socket's name in the file system, removed on drop unless another daemon has taken it since.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    mark: (u64, i64, i64),
    /// The user whose socket it is: the daemon's own.
    owner: u32,
}

/// Tells a file from a later one of the same name; an inode's number alone is soon another file's.
fn mark(found: &fs::Metadata) -> (u64, i64, i64) {
    (found.ino(), found.ctime(), found.ctime_nsec())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| mark(&found) == self.mark) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
