//! The API as a caller sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::tier::{Standing, Tier};

/// A caller with a token.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
    standing: Option<Standing>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
    pub json: Value,
    pub headers: BTreeMap<String, String>,
}

impl Answer {
    pub fn outcome(&self) -> &str {
        self.json["outcome"].as_str().unwrap_or("none")
    }

    /// Asserts the outcome; the whole answer is in the message.
    #[track_caller]
    pub fn expect(&self, outcome: &str) -> &Self {
        assert_eq!(self.outcome(), outcome, "{} {}", self.status, self.shown());
        self
    }

    /// Asserts the status and the error's code.
    #[track_caller]
    pub fn expect_error(&self, status: u16, code: &str) -> &Self {
        let seen = (self.status, self.json["code"].as_str().unwrap_or_default());
        assert_eq!(seen, (status, code), "{}", self.shown());
        self
    }

    pub fn result(&self) -> &Value {
        &self.json["result"]
    }

    fn shown(&self) -> String {
        self.text.chars().take(2000).collect()
    }
}

/// A server-sent event's name and data; none of a comment.
pub fn event(text: &str) -> Option<(String, Value)> {
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let (name, data) = line("event: ").zip(line("data: "))?;
    Some((name, serde_json::from_str(&data).unwrap()))
}

impl Client {
    pub fn new(url: &str, token: &str) -> Self {
        let http = super::http().timeout(Duration::from_secs(120)).build().unwrap();
        Self { http, url: url.to_owned(), token: token.to_owned(), standing: None }
    }

    /// Knows what stands ready on its daemon.
    pub fn beside(self, standing: Standing) -> Self {
        Self { standing: Some(standing), ..self }
    }

    /// The same caller at another address.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    pub async fn send(&self, method: &str, path: &str, body: Option<String>) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        self.finish(request).await
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, format!("{}{path}", self.url))
    }

    pub async fn finish(&self, request: reqwest::RequestBuilder) -> Answer {
        self.attempt(request).await.unwrap()
    }

    /// As [`Client::finish`], where the connection may break.
    pub async fn attempt(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
            .collect();
        let text = answer.text().await?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, text, json, headers })
    }

    pub async fn set_up(&self, request: Value) -> Answer {
        self.send("POST", "/environments/setup", Some(request.to_string())).await
    }

    /// Sets up one module, `main.js`, and returns the environment's id.
    pub async fn environment(&self, runtime: &str, source: &str) -> String {
        self.environment_of(runtime, json!({ "main.js": source }), "main.js").await
    }

    pub async fn environment_of(&self, runtime: &str, modules: Value, main: &str) -> String {
        let request = json!({ "mainModule": main, "modules": modules, "runtime": runtime });
        let answer = self.set_up(request).await;
        assert_eq!(answer.status, 200, "set-up: {}", answer.text);
        answer.json["id"].as_str().unwrap().to_owned()
    }

    pub async fn execute(&self, id: &str, body: Value) -> Answer {
        let answer = self.send("POST", &format!("/environments/{id}/execute"), Some(body.to_string())).await;
        if let Some(standing) = &self.standing {
            standing.note(&answer.json);
        }
        answer
    }

    /// Sets up `source`, calls it once, deletes it, and returns the call's answer. What stands ready on the daemon's tier is
    /// waited for before the call.
    pub async fn try_out(&self, runtime: &str, source: &str, body: Value) -> Answer {
        self.try_permitted(runtime, source, json!({}), body).await
    }

    /// As [`Client::try_out`], with permissions.
    pub async fn try_permitted(&self, runtime: &str, source: &str, permissions: Value, body: Value) -> Answer {
        let id = self.ready_environment(runtime, source, permissions).await;
        let answer = self.execute(&id, body).await;
        assert_eq!(answer.status, 200, "execute: {}", answer.text);
        self.delete(&id).await;
        answer
    }

    /// An environment for whose next call a sandbox stands ready, if one can on the daemon's tier.
    pub async fn ready_environment(&self, runtime: &str, source: &str, permissions: Value) -> String {
        let plain = json!({ "main.js": source });
        let Some(standing) = &self.standing else {
            return self.permitted(runtime, plain, permissions).await;
        };
        match standing.tier {
            Tier::Cold => self.permitted(runtime, plain, permissions).await,
            Tier::Runtime => {
                let id = self.permitted(runtime, plain, permissions).await;
                standing.wait_for(2).await;
                id
            }
            Tier::Environment => {
                let id = self.hot_environment(runtime, source, permissions).await;
                standing.settle().await;
                id
            }
        }
    }

    async fn permitted(&self, runtime: &str, modules: Value, permissions: Value) -> String {
        let request =
            json!({ "mainModule": "main.js", "modules": modules, "runtime": runtime, "permissions": permissions });
        let answer = self.set_up(request).await;
        assert_eq!(answer.status, 200, "set-up: {}", answer.text);
        answer.json["id"].as_str().unwrap().to_owned()
    }

    /// An environment that was called often enough to have a sandbox stand for it. The calls that did it ran nothing of
    /// `source` but its import.
    async fn hot_environment(&self, runtime: &str, source: &str, permissions: Value) -> String {
        let main = r#"
            import * as tried from "./tried.js";
            const { handler: own } = tried;
            const idle = (event, context) => event.data === "idle" ? null : own(event, context);
            export const handler = typeof own === "function" ? idle : own;"#;
        let modules = json!({ "main.js": main, "tried.js": source });
        let id = self.permitted(runtime, modules, permissions).await;
        for _ in 0..2 {
            let body = json!({ "data": "idle", "limits": { "timeoutMs": 2000 } });
            let answer = self.execute(&id, body).await;
            assert_eq!(answer.status, 200, "execute: {}", answer.text);
        }
        id
    }

    pub async fn delete(&self, id: &str) -> Answer {
        self.send("DELETE", &format!("/environments/{id}"), None).await
    }

    /// A call that any healthy daemon answers.
    pub async fn assert_healthy_call(&self, runtime: &str) {
        let source = "export const handler = (event) => ({ echo: event.data });";
        let answer = self.try_out(runtime, source, json!({ "data": 42, "limits": { "timeoutMs": 30000 } })).await;
        answer.expect("ok");
        assert_eq!(answer.result(), &json!({ "echo": 42 }));
    }
}
