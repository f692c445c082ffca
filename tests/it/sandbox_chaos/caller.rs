//! A caller with an environment of its own, who does what the dice say and believes no answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::accepted::Accepted;
use super::order::{Act, MAIN, Order};
use super::site::Site;
use crate::support::client::event;
use crate::support::daemon::TOKEN;
use crate::support::dice::Dice;
use crate::support::{Answer, eventually};

/// How long a thing may take that comes by itself, on a host that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The refusals that a struck sandbox or a full host may come to.
const REFUSALS: [(u16, &str); 4] =
    [(500, "execution_failed"), (500, "setup_failed"), (429, "too_many_requests"), (503, "unavailable")];

pub struct Caller {
    pub site: Arc<Site>,
    pub dice: Dice,
    pub name: String,
    pub runtime: &'static str,
    pub environment: String,
    /// Requests so far.
    asked: u64,
    /// The revision that surely is there, and the last that was asked for: a kill may have come between.
    surely: u64,
    pub newest: u64,
    pub accepted: Vec<Accepted>,
}

type Headers<'a> = &'a [(&'a str, &'a str)];

impl Caller {
    pub fn new(site: &Arc<Site>, dice: Dice, name: String, runtime: &'static str) -> Self {
        let (site, environment) = (Arc::clone(site), String::new());
        Self { site, dice, name, runtime, environment, asked: 0, surely: 0, newest: 0, accepted: Vec::new() }
    }

    /// Lives until then, and sees to what it began.
    pub async fn live(mut self, until: Instant) {
        self.set_up().await;
        while Instant::now() < until {
            match self.dice.below(100) {
                0..26 => self.call(Act::Echo, None).await,
                26..33 => self.call(Act::Echo, Some(format!("{} {}", self.name, self.asked))).await,
                33..44 => self.follow().await,
                44..58 => self.ask_for_later().await,
                58..66 => self.look_or_cancel().await,
                66..72 => self.hang_up().await,
                72..75 => self.call(Act::Throw, None).await,
                75..79 => self.call(Act::Loop, None).await,
                79..82 => self.call(Act::Memory, None).await,
                82..84 => self.call(Act::Fork, None).await,
                84..87 => self.call(Act::Exit, None).await,
                87..89 => self.call(Act::Flood, None).await,
                89..93 => self.update().await,
                93..95 => self.live_longer().await,
                95..98 => self.clone_and_delete().await,
                98..99 => self.clone_that_expires().await,
                _ => self.set_up_nonsense().await,
            }
        }
        self.settle_accepted().await;
        self.look_back().await;
        self.delete(&self.environment).await;
    }

    /// The answer, and the life that gave it. None: it was killed under the request. Any other break is a defect.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: Headers<'_>,
    ) -> Option<(u64, Answer)> {
        let (life, client) = self.site.up().await;
        let mut request = client.request(method, path).bearer_auth(TOKEN);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        match client.attempt(request).await {
            Ok(answer) => Some((life, answer)),
            Err(error) => {
                assert!(self.site.is_over(life), "{method} {path}: no answer, and nobody killed the daemon: {error:?}");
                self.site.saw("cut off");
                None
            }
        }
    }

    /// Asks until there is an answer: what is asked does no harm twice.
    pub async fn insist(&self, method: &str, path: &str) -> (u64, Answer) {
        loop {
            if let Some(answer) = self.ask(method, path, None, &[]).await {
                return answer;
            }
        }
    }

    async fn execute(&self, environment: &str, order: &Order, headers: Headers<'_>) -> Option<Answer> {
        let path = format!("/environments/{environment}/execute");
        self.ask("POST", &path, Some(order.body()), headers).await.map(|(_, answer)| answer)
    }

    fn order(&mut self, act: Act) -> Order {
        self.asked += 1;
        Order { act, mark: format!("{} {}", self.name, self.asked), ms: 0, name: None, since: self.surely }
    }

    fn slow_order(&mut self, ms: u64) -> Order {
        Order { ms, ..self.order(Act::Sleep) }
    }

    /// Takes an answer that refuses.
    pub fn refused(&self, what: &str, status: u16, body: &Value) {
        let code = body["code"].as_str().unwrap_or_default();
        assert!(REFUSALS.contains(&(status, code)), "{what}: {status} {body}");
        self.site.saw("struck");
        self.site.saw(format!("{what}: {code}"));
    }

    /// Takes the answer of a call that ran.
    pub fn judge(&self, how: &str, order: &Order, answer: &Value) {
        let outcome = order.assert_own(answer, self.newest);
        self.note(how, order, outcome);
    }

    pub fn note(&self, how: &str, order: &Order, outcome: &str) {
        if order.was_struck(outcome) {
            self.site.saw("struck");
        }
        self.site.saw(format!("{how} {:?}: {outcome}", order.act));
    }

    fn take(&self, how: &str, order: &Order, answer: &Answer) {
        match answer.status {
            200 => self.judge(how, order, &answer.json),
            status => self.refused(how, status, &answer.json),
        }
    }

    async fn call(&mut self, act: Act, name: Option<String>) {
        let order = Order { name, ..self.order(act) };
        if let Some(answer) = self.execute(&self.environment, &order, &[]).await {
            self.take("call", &order, &answer);
        }
    }

    async fn follow(&mut self) {
        let act = *self.dice.one_of(&[Act::Echo, Act::Echo, Act::Throw, Act::Loop]);
        let order = self.order(act);
        let headers = [("accept", "text/event-stream")];
        let Some(answer) = self.execute(&self.environment, &order, &headers).await else { return };
        if answer.status != 200 {
            return self.refused("follow", answer.status, &answer.json);
        }
        let mut events: Vec<(String, Value)> = answer.text.split("\n\n").filter_map(event).collect();
        let (last, data) = events.pop().unwrap_or_else(|| panic!("{order:?}: no event"));
        let strange = events.iter().find(|(name, data)| name != "log" || data["message"] != order.mark);
        assert!(strange.is_none(), "{order:?}: {}", answer.text);
        match last.as_str() {
            "result" => self.judge("follow", &order, &data),
            "error" => self.refused("follow", 500, &data),
            _ => panic!("{order:?}: {}", answer.text),
        }
    }

    pub async fn ask_for_later(&mut self) {
        let act = *self.dice.one_of(&[Act::Echo, Act::Sleep, Act::Sleep, Act::Throw, Act::Loop, Act::Exit]);
        let order = Order { ms: self.dice.below(3000), ..self.order(act) };
        let path = format!("/environments/{}/execute", self.environment);
        let asked = self.ask("POST", &path, Some(order.body()), &[("prefer", "respond-async")]).await;
        match asked {
            Some((life, answer)) if answer.status == 202 => {
                self.site.saw("accepted");
                let at = answer.headers["location"].clone();
                self.accepted.push(Accepted { at, order, life, cancelled: false });
            }
            Some((_, answer)) => self.refused("later", answer.status, &answer.json),
            None => {}
        }
    }

    async fn hang_up(&mut self) {
        let order = self.slow_order(8000);
        let headers: Headers = *self.dice.one_of::<Headers>(&[&[], &[("accept", "text/event-stream")]]);
        let patience = Duration::from_millis(self.dice.below(1500));
        let asked = tokio::time::timeout(patience, self.execute(&self.environment, &order, headers)).await;
        self.site.saw("hung up");
        if let (Ok(Some(answer)), true) = (asked, headers.is_empty()) {
            self.take("call", &order, &answer);
        }
    }

    fn modules(&mut self) -> Value {
        self.newest += 1;
        // Deno's is made JavaScript in a sandbox.
        let types = if self.runtime == "deno" { "const typed: number = 1;" } else { "" };
        let (main, word) = (format!("{MAIN}{types}"), format!("export const word = {};", self.newest));
        let name = if self.runtime == "deno" { "main.ts" } else { "main.js" };
        json!({ "mainModule": name, "modules": { name: main, "word.js": word } })
    }

    async fn set_up(&mut self) {
        let mut request = self.modules();
        request["runtime"] = json!(self.runtime);
        if self.dice.below(3) == 0 {
            request["permissions"] = json!({ "allowRun": true, "allowRead": true });
        }
        self.surely = self.newest;
        while self.environment.is_empty() {
            self.environment = self.made("set-up", "/environments/setup", request.clone()).await.unwrap_or_default();
        }
    }

    /// The id of an environment that was made. Where the daemon is killed it may be there all the same.
    async fn made(&self, what: &str, path: &str, request: Value) -> Option<String> {
        match self.ask("POST", path, Some(request), &[]).await {
            None => self.site.saw("stray"),
            Some((_, answer)) if answer.status == 200 => {
                self.site.saw(format!("{what}: made"));
                return Some(answer.json["id"].as_str().unwrap().to_owned());
            }
            Some((_, answer)) => self.refused(what, answer.status, &answer.json),
        }
        None
    }

    async fn set_up_nonsense(&self) {
        // A sandbox finds out.
        let request = json!({ "mainModule": "a.ts", "modules": { "a.ts": "const = 1" }, "runtime": "deno" });
        match self.ask("POST", "/environments/setup", Some(request), &[]).await {
            Some((_, answer)) if answer.status == 400 => drop(answer.expect_error(400, "validation_error")),
            Some((_, answer)) => self.refused("nonsense", answer.status, &answer.json),
            None => {}
        }
    }

    async fn update(&mut self) {
        let request = self.modules();
        let path = format!("/environments/{}/modules", self.environment);
        match self.ask("PUT", &path, Some(request), &[]).await {
            Some((_, answer)) if answer.status == 200 => {
                self.site.saw("update: made");
                self.surely = self.newest;
            }
            Some((_, answer)) => self.refused("update", answer.status, &answer.json),
            None => {}
        }
    }

    async fn live_longer(&mut self) {
        let body = json!({ "ttlSeconds": 3600 + self.dice.below(1000) });
        let path = format!("/environments/{}", self.environment);
        let Some((_, answer)) = self.ask("PATCH", &path, Some(body.clone()), &[]).await else { return };
        assert_eq!((answer.status, &answer.json["ttlSeconds"]), (200, &body["ttlSeconds"]), "{}", answer.text);
        self.site.saw("patch: made");
    }

    async fn cloned(&self, ttl: u64) -> Option<String> {
        let path = format!("/environments/{}/clone", self.environment);
        self.made("clone", &path, json!({ "ttlSeconds": ttl })).await
    }

    async fn clone_and_delete(&mut self) {
        let Some(copy) = self.cloned(600).await else { return };
        let order = self.slow_order(3000);
        let pause = Duration::from_millis(self.dice.below(2000));
        let deletion = async {
            tokio::time::sleep(pause).await;
            self.delete(&copy).await;
        };
        let (called, ()) = tokio::join!(self.execute(&copy, &order, &[]), deletion);
        match called {
            Some(answer) if answer.status == 404 => drop(answer.expect_error(404, "not_found")),
            Some(answer) if answer.outcome() == "cancelled" => self.site.saw("call Sleep: cancelled"),
            Some(answer) => self.take("call", &order, &answer),
            None => {}
        }
    }

    async fn clone_that_expires(&mut self) {
        let Some(copy) = self.cloned(1).await else { return };
        self.eventually_absent(&copy).await;
        self.site.saw("expired");
    }

    async fn eventually_absent(&self, environment: &str) {
        let path = format!("/environments/{environment}");
        eventually("the end of an environment", PATIENCE, async || match self.insist("GET", &path).await.1 {
            answer if answer.status == 404 => Ok(()),
            answer => Err(answer.text),
        })
        .await;
    }

    async fn delete(&self, environment: &str) {
        let path = format!("/environments/{environment}");
        let asked = self.ask("DELETE", &path, None, &[]).await;
        let cut_off = asked.is_none();
        let answer = match asked {
            Some((_, answer)) => answer,
            None => self.insist("DELETE", &path).await.1,
        };
        let expected = answer.status == 204 || cut_off && answer.status == 404;
        assert!(expected, "{} {}", answer.status, answer.text);
        self.eventually_absent(environment).await;
        self.site.saw("deleted");
    }

    /// Every call has its end in the store, and none was begun that nobody asked for, or twice.
    async fn look_back(&self) {
        let path = format!("/environments/{}", self.environment);
        let (calls, listed) = (format!("{path}/executions"), format!("/executions?environment={}", self.environment));
        eventually("the end of all calls", PATIENCE, async || {
            let (calls, listed) = (self.insist("GET", &calls).await.1, self.insist("GET", &listed).await.1);
            let all = |answer: &Answer, field: &str| {
                answer.json.as_array().into_iter().flatten().all(|call| call[field].is_string())
            };
            // The second one is 404 where no call was accepted.
            let over = calls.json.is_array() && all(&calls, "completedAt") && all(&listed, "endedAt");
            if over { Ok(()) } else { Err(format!("{} {}", calls.text, listed.text)) }
        })
        .await;
        let environment = self.insist("GET", &path).await.1;
        let begun = environment.json["executionCount"].as_u64();
        assert!(begun <= Some(self.asked), "{} were asked for: {}", self.asked, environment.text);
    }
}
