//! The API as a caller sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

/// A caller with a token.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
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

impl Client {
    pub fn new(url: &str, token: &str) -> Self {
        let http = super::http().timeout(Duration::from_secs(120)).build().unwrap();
        Self { http, url: url.to_owned(), token: token.to_owned() }
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
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
            .collect();
        let text = answer.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, text, json, headers }
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
        self.send("POST", &format!("/environments/{id}/execute"), Some(body.to_string())).await
    }

    /// Sets up `source`, calls it once, deletes it, and returns the call's answer.
    pub async fn try_out(&self, runtime: &str, source: &str, body: Value) -> Answer {
        let id = self.environment(runtime, source).await;
        let answer = self.execute(&id, body).await;
        assert_eq!(answer.status, 200, "execute: {}", answer.text);
        self.delete(&id).await;
        answer
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
