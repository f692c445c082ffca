//! The platform's thread: connections in, answers out, faults where the script says so.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;

use super::exchange::{Call, Exchange};
use super::http::{Answer, Connection};
use super::script::Reply;
use super::{Core, Door, client_calls, worker_calls};

/// How often silent workers are looked for.
const ROUND: Duration = Duration::from_millis(20);

/// Runs until the [`Platform`](super::Platform) is dropped.
pub fn run(core: Arc<Core>, listener: StdListener, orders: UnboundedReceiver<Door>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::select! {
            () = answer_door(&core, listener, orders) => {}
            () = redeliver(&core) => {}
        }
    });
}

async fn answer_door(core: &Arc<Core>, listener: TcpListener, mut orders: UnboundedReceiver<Door>) {
    let address = listener.local_addr().unwrap();
    let mut open = Some(listener);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Door::Close(done)) => {
                    open = None;
                    connections.shutdown().await;
                    let _ = done.send(());
                }
                Some(Door::Open(done)) => {
                    open.get_or_insert_with(|| listen(address));
                    let _ = done.send(());
                }
            },
            stream = accept(open.as_ref()) => drop(connections.spawn(talk(Arc::clone(core), stream))),
        }
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(1024).unwrap()
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.unwrap().0,
        None => std::future::pending().await,
    }
}

async fn redeliver(core: &Core) {
    let Some(after) = core.options.redeliver_after else { return std::future::pending().await };
    let mut rounds = tokio::time::interval(ROUND);
    loop {
        rounds.tick().await;
        let lost = core.state().redeliver(after);
        if lost > 0 {
            core.change(|_| ());
        }
    }
}

/// One connection, request after request.
async fn talk(core: Arc<Core>, stream: TcpStream) {
    let mut connection = Connection::new(stream);
    while let Some(mut exchange) = connection.head().await {
        if core.state().script.take_early_reset(exchange.call) {
            log(&core, exchange, Some(0));
            return connection.reset();
        }
        let Some(body) = connection.body(&exchange).await else { return };
        exchange.body = body;
        exchange.whole = Some(Instant::now());
        if exchange.call == Call::Done && exchange.json()["status"] == "IN_PROGRESS" {
            exchange.call = Call::Progress;
        }
        let at = log(&core, exchange.clone(), None);
        let told = tokio::select! {
            told = decide(&core, &exchange) => told,
            () = connection.gone() => {
                return core.change(|state| state.log[at].abandoned = true);
            }
        };
        let Some(answer) = told else {
            core.change(|state| state.log[at].answered = Some((Instant::now(), 0)));
            return connection.reset();
        };
        // Booked first: who has read the answer finds it in the log.
        core.change(|state| state.log[at].answered = Some((Instant::now(), answer.status)));
        if connection.answer(&answer).await.is_none() {
            return;
        }
    }
}

fn log(core: &Core, mut exchange: Exchange, status: Option<u16>) -> usize {
    exchange.answered = status.map(|status| (Instant::now(), status));
    core.change(|state| {
        state.log.push(exchange);
        state.log.len() - 1
    })
}

/// The answer that is due; nothing for a reset.
async fn decide(core: &Core, exchange: &Exchange) -> Option<Answer> {
    let reply = core.state().script.take(exchange.call);
    match reply {
        Reply::Normal | Reply::ResetBeforeBody => Some(truth(core, exchange).await),
        Reply::Slow(pause) => {
            tokio::time::sleep(pause).await;
            Some(truth(core, exchange).await)
        }
        Reply::Hang => std::future::pending().await,
        Reply::ResetAfterBody { kept } => {
            if kept {
                truth(core, exchange).await;
            }
            None
        }
        Reply::Answer(answer) => {
            let is_post = matches!(exchange.call, Call::Done | Call::Progress | Call::Stream);
            if is_post && (200..300).contains(&answer.status) {
                truth(core, exchange).await;
            }
            Some(answer)
        }
    }
}

async fn truth(core: &Core, exchange: &Exchange) -> Answer {
    match exchange.call {
        Call::Client => client_calls::answer(core, exchange).await,
        _ => worker_calls::answer(core, exchange).await,
    }
}
