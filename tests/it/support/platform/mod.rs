//! A double of RunPod's platform, for workers and for clients: `reference/runpod.md` in a thread of the test.
//!
//! A test starts it, gives its [`Platform::worker_env`] to a worker, [`submit`](Platform::submit)s jobs and waits by event
//! ([`until`](Platform::until)). Every exchange is in the [log](state::State::log). What goes wrong is scripted per call:
//! [`next`](Platform::next) for the next answers, [`always`](Platform::always) until it is taken back,
//! [`refuse`](Platform::refuse) for a listener that is gone. It speaks HTTP itself, because a reset or half an answer is
//! nothing that a web framework offers.

#![allow(dead_code, reason = "tests and benches each need another part of it")]

pub mod checks;
mod client_calls;
mod exchange;
mod http;
pub mod job;
mod script;
mod serve;
pub mod state;
mod worker_calls;

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

pub use exchange::{Call, Exchange};
pub use script::Reply;
pub use state::State;

/// The longest that a test waits for something to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a platform behaves when nothing is scripted.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of the worker's calls, raw, and of the client's, as a bearer.
    pub api_key: String,
    pub endpoint: String,
    /// How long an open take or stop waits before it is answered 204.
    pub hold: Duration,
    /// After how long without a heartbeat that names it a job goes back into the queue.
    pub redeliver_after: Option<Duration>,
    /// Bytes of a result; more is answered 400.
    pub result_limit: usize,
    /// Jobs that a batch may hold beyond what was asked for.
    pub overfill: usize,
    /// Between two heartbeats, as the worker is told.
    pub ping_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            api_key: "key-of-the-tests".to_owned(),
            endpoint: "ep0test".to_owned(),
            hold: Duration::from_secs(10),
            redeliver_after: None,
            result_limit: 20 << 20,
            overfill: 0,
            ping_interval: Duration::from_secs(1),
        }
    }
}

/// What the thread and the test share.
struct Core {
    options: Options,
    state: Mutex<State>,
    /// Counts changes; whoever waits looks again.
    changes: watch::Sender<u64>,
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes the state and wakes who waits.
    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let result = act(&mut self.state());
        self.changes.send_modify(|count| *count += 1);
        result
    }
}

/// What the thread is told to do with its listener.
enum Door {
    Close(oneshot::Sender<()>),
    Open(oneshot::Sender<()>),
}

/// A running platform; it ends when it is dropped.
pub struct Platform {
    core: Arc<Core>,
    address: SocketAddr,
    door: mpsc::UnboundedSender<Door>,
}

impl Platform {
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    pub fn start_with(options: Options) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (changes, _) = watch::channel(0);
        let core = Arc::new(Core { options, state: Mutex::new(State::new()), changes });
        let (door, orders) = mpsc::unbounded_channel();
        let shared = Arc::clone(&core);
        std::thread::spawn(move || serve::run(shared, listener, orders));
        Self { core, address, door }
    }

    pub fn options(&self) -> &Options {
        &self.core.options
    }

    /// `http://host:port/v2`, the base of the client's API.
    pub fn url(&self) -> String {
        format!("http://{}/v2", self.address)
    }

    /// The URL of one of the client's routes.
    pub fn client_url(&self, route: &str) -> String {
        format!("{}/{}/{route}", self.url(), self.core.options.endpoint)
    }

    /// What RunPod sets in a worker's environment.
    pub fn worker_env(&self, worker: &str) -> Vec<(String, String)> {
        let gpu = "gpu=NVIDIA+GeForce+RTX+4090";
        let hook = |path: &str| format!("{}?{gpu}", self.client_url(path));
        let pairs = [
            ("RUNPOD_WEBHOOK_GET_JOB", hook("job-take/$ID")),
            ("RUNPOD_WEBHOOK_POST_OUTPUT", hook("job-done/$RUNPOD_POD_ID/$ID")),
            ("RUNPOD_WEBHOOK_POST_STREAM", hook("job-stream/$RUNPOD_POD_ID/$ID")),
            ("RUNPOD_WEBHOOK_PING", hook("ping/$RUNPOD_POD_ID")),
            ("RUNPOD_AI_API_KEY", self.core.options.api_key.clone()),
            ("RUNPOD_POD_ID", worker.to_owned()),
            ("RUNPOD_ENDPOINT_ID", self.core.options.endpoint.clone()),
            ("RUNPOD_POD_HOSTNAME", format!("{worker}-64410000")),
            ("RUNPOD_PING_INTERVAL", self.core.options.ping_interval.as_millis().to_string()),
            ("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "true".to_owned()),
            ("RUNPOD_SKIP_GPU_CHECK", "true".to_owned()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Queues a job with this input; its id.
    pub fn submit(&self, input: Value) -> String {
        self.submit_whole(json!({"input": input}))
    }

    /// Queues a job as a client posts it: `input`, and maybe `id`, `s3Config`, `policy`, `webhook`.
    pub fn submit_whole(&self, posted: Value) -> String {
        self.core.change(|state| state.submit(posted, ""))
    }

    /// Queues jobs with these inputs in one moment, so that one batch may hold them all; their ids.
    pub fn submit_all(&self, inputs: Vec<Value>) -> Vec<String> {
        self.submit_all_whole(inputs.into_iter().map(|input| json!({"input": input})).collect())
    }

    /// The same, as clients post them; an id may come twice.
    pub fn submit_all_whole(&self, posted: Vec<Value>) -> Vec<String> {
        self.core.change(|state| posted.into_iter().map(|posted| state.submit(posted, "")).collect())
    }

    /// Queues the same job once more, as if it had not been handed out.
    pub fn hand_out_again(&self, id: &str) {
        self.core.change(|state| state.queue.push_back(id.to_owned()));
    }

    /// Takes everything out of the queue; the jobs stay known, and their results welcome.
    pub fn empty_queue(&self) {
        self.core.change(|state| state.queue.clear());
    }

    /// Tells the worker to stop these jobs.
    pub fn stop(&self, ids: &[&str]) {
        self.core.change(|state| state.to_stop.extend(ids.iter().map(|id| (*id).to_owned())));
    }

    /// Scripts the next answer to a call; several are taken in turn.
    pub fn next(&self, call: Call, reply: Reply) {
        self.core.state().script.next(call, reply);
    }

    /// Scripts every answer to a call, once the next ones are used up.
    pub fn always(&self, call: Call, reply: Reply) {
        self.core.state().script.always(call, reply);
    }

    /// Goes back to normal answers. Calls that hang stay so.
    pub fn forgive(&self, call: Call) {
        self.core.state().script.forgive(call);
    }

    /// Closes the listener: connections are refused.
    pub async fn refuse(&self) {
        self.order(Door::Close).await;
    }

    /// Listens again, on the same port.
    pub async fn accept(&self) {
        self.order(Door::Open).await;
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Door) {
        let (done, is_done) = oneshot::channel();
        assert!(self.door.send(order(done)).is_ok(), "the platform runs");
        is_done.await.unwrap();
    }

    /// Looks at the state.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.core.state())
    }

    /// Waits until `look` finds something, looking at every change.
    ///
    /// # Panics
    /// When it does not within a minute; the log so far is in the message.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.core.changes.subscribe();
        let watching = async {
            loop {
                if let Some(found) = look(&self.core.state()) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE, watching).await {
            Ok(found) => found,
            Err(_) => panic!("{what}: not within {PATIENCE:?}; the log:\n{}", self.look(State::summary)),
        }
    }

    /// Waits until a job has come to an end, and gives it.
    pub async fn settled(&self, id: &str) -> job::Job {
        self.until(&format!("the end of {id}"), |state| state.jobs.get(id).filter(|job| job.status.is_final()).cloned())
            .await
    }

    /// Waits until so many exchanges of a call have arrived.
    pub async fn arrived(&self, call: Call, count: usize) {
        self.until(&format!("{count} of {call:?}"), |state| (state.calls(call).count() >= count).then_some(())).await;
    }
}
