//! The platform's addresses: templates with placeholders, to which each call appends what it has to say.
//!
//! RunPod's SDK joins texts, with `&` whether or not there is a query before it. Here the text is joined in the same
//! way where the template has a `?`, and a `?` is put where it has none. The heartbeat's query is merged properly.

use reqwest::Url;

use crate::domain::job::JobId;

/// The version of the SDK whose protocol is spoken, as heartbeats and reports name it.
const PROTOCOL: &str = "1.12.0";
/// The longest reason in a report of ill health, in characters.
const LONGEST_REASON: usize = 256;

/// An address that the platform gave cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a URL")]
pub struct BadUrl(pub &'static str);

/// As the platform gave them.
#[derive(Debug, Clone, Default)]
pub struct Templates {
    pub take: String,
    pub done: String,
    pub ping: Option<String>,
    /// None: `$RUNPOD_GPU_TYPE_ID` stays as it is.
    pub gpu_type: Option<String>,
}

/// The addresses of one worker, checked.
#[derive(Debug)]
pub(super) struct Urls {
    take: String,
    done: String,
    ping: Option<Url>,
}

impl Urls {
    pub(super) fn new(given: &Templates, worker: &str) -> Result<Self, BadUrl> {
        let of_worker = |template: &str| {
            let text = template.replace("$RUNPOD_POD_ID", worker);
            match &given.gpu_type {
                Some(gpu) => text.replace("$RUNPOD_GPU_TYPE_ID", gpu),
                None => text,
            }
        };
        let take = of_worker(&given.take).replace("$ID", worker);
        let done = of_worker(&given.done);
        parse(&take, "runpod.take_url")?;
        parse(&done.replace("$ID", "job"), "runpod.done_url")?;
        let ping = given.ping.as_deref().map(|template| parse(&of_worker(template), "runpod.ping_url")).transpose()?;
        Ok(Self { take, done, ping })
    }

    /// For up to `slots` jobs; more than one are asked for on a route of their own.
    pub(super) fn take(&self, slots: usize, busy: bool) -> Result<Url, BadUrl> {
        let busy = u8::from(busy);
        let text = if slots > 1 {
            let batch = self.take.replacen("/job-take/", "/job-take-batch/", 1);
            with(&batch, &format!("batch_size={slots}&job_in_progress={busy}"))
        } else {
            with(&self.take, &format!("job_in_progress={busy}"))
        };
        parse(&text, "runpod.take_url")
    }

    /// Where the jobs to be stopped are told; none when the address has no part that could be replaced.
    pub(super) fn stop(&self) -> Option<Url> {
        let text = self.take.contains("/job-take/").then(|| self.take.replacen("/job-take/", "/job-stop/", 1))?;
        Url::parse(&text).ok()
    }

    pub(super) fn done(&self, job: &JobId) -> Result<Url, BadUrl> {
        parse(&with(&self.done.replace("$ID", job.as_str()), "isStream=false"), "runpod.done_url")
    }

    /// None: there is no address for heartbeats.
    pub(super) fn heartbeat(&self, held: &[JobId]) -> Option<Url> {
        let mut url = self.ping.clone()?;
        let mut query = url.query_pairs_mut();
        if !held.is_empty() {
            let ids: Vec<&str> = held.iter().map(JobId::as_str).collect();
            query.append_pair("job_id", &ids.join(","));
        }
        query.append_pair("runpod_version", PROTOCOL);
        drop(query);
        Some(url)
    }

    pub(super) fn unhealthy(&self, check: &str, reason: &str) -> Option<Url> {
        let mut url = self.ping.clone()?;
        let reason: String = reason.chars().take(LONGEST_REASON).collect();
        url.query_pairs_mut()
            .append_pair("status", "unhealthy")
            .append_pair("check", check)
            .append_pair("reason", &reason)
            .append_pair("runpod_version", PROTOCOL);
        Some(url)
    }
}

fn with(url: &str, query: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{query}")
}

fn parse(text: &str, key: &'static str) -> Result<Url, BadUrl> {
    let url = Url::parse(text).map_err(|_| BadUrl(key))?;
    if url.has_host() && matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(BadUrl(key)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(query: &str) -> Urls {
        let base = "https://api.example/v2/ep";
        let templates = Templates {
            take: format!("{base}/job-take/$ID{query}"),
            done: format!("{base}/job-done/$RUNPOD_POD_ID/$ID{query}"),
            ping: Some(format!("{base}/ping/$RUNPOD_POD_ID{query}")),
            gpu_type: Some("NVIDIA+L4".into()),
        };
        Urls::new(&templates, "pod0").expect("addresses")
    }

    fn id(text: &str) -> JobId {
        text.parse().expect("an id")
    }

    #[test]
    fn each_call_has_the_address_that_the_platform_expects() {
        let urls = urls("?gpu=$RUNPOD_GPU_TYPE_ID");
        let base = "https://api.example/v2/ep";
        let text = |url: Result<Url, BadUrl>| url.expect("a URL").to_string();
        assert_eq!(text(urls.take(1, false)), format!("{base}/job-take/pod0?gpu=NVIDIA+L4&job_in_progress=0"));
        assert_eq!(
            text(urls.take(3, true)),
            format!("{base}/job-take-batch/pod0?gpu=NVIDIA+L4&batch_size=3&job_in_progress=1")
        );
        assert_eq!(text(urls.done(&id("j-u1"))), format!("{base}/job-done/pod0/j-u1?gpu=NVIDIA+L4&isStream=false"));
        let some = |url: Option<Url>| url.expect("a URL").to_string();
        assert_eq!(some(urls.stop()), format!("{base}/job-stop/pod0?gpu=NVIDIA+L4"));
        assert_eq!(some(urls.heartbeat(&[])), format!("{base}/ping/pod0?gpu=NVIDIA+L4&runpod_version=1.12.0"));
        assert_eq!(
            some(urls.heartbeat(&[id("a"), id("b")])),
            format!("{base}/ping/pod0?gpu=NVIDIA+L4&job_id=a%2Cb&runpod_version=1.12.0")
        );
    }

    #[test]
    fn a_template_without_a_query_gets_one() {
        let urls = urls("");
        let text = |url: Result<Url, BadUrl>| url.expect("a URL").to_string();
        assert_eq!(text(urls.take(1, true)), "https://api.example/v2/ep/job-take/pod0?job_in_progress=1");
        assert_eq!(text(urls.done(&id("j"))), "https://api.example/v2/ep/job-done/pod0/j?isStream=false");
    }

    #[test]
    fn a_report_is_short_and_its_words_are_escaped() {
        let url = urls("").unhealthy("comfy", &"é: a,b ".repeat(100)).expect("a URL").to_string();
        let reason = url.split("reason=").nth(1).and_then(|rest| rest.split('&').next()).expect("a reason");
        assert!(reason.starts_with("%C3%A9%3A+a%2Cb+"), "{reason}");
        let escapes = reason.matches('%').count();
        assert_eq!(reason.len() - 2 * escapes - reason.matches("%C3").count(), 256);
    }

    #[test]
    fn an_address_that_is_none_is_named_by_its_key() {
        let bad = Templates { take: "JOB".into(), done: "https://a/$ID".into(), ..Templates::default() };
        assert_eq!(Urls::new(&bad, "pod0").err(), Some(BadUrl("runpod.take_url")));
        let odd = Templates { take: "https://a/x/$ID".into(), done: "https://a/$ID".into(), ..Templates::default() };
        assert!(Urls::new(&odd, "pod0").expect("addresses").stop().is_none());
    }
}
