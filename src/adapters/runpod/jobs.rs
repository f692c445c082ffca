//! Reads what the platform hands out: one job or a list of them, on either route, with whatever fields beside.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use slog::{Logger, warn};

use crate::domain::bucket::{Bucket, S3Config};
use crate::domain::job::{Job, JobId};
use crate::domain::secret::Secret;
use crate::domain::tenant::TenantName;
use crate::ports::job_source::{Empty, Taken};

/// One entry; what else is in it is not looked at.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "also_null")]
    input: Option<&'a RawValue>,
    #[serde(borrow, rename = "s3Config")]
    bucket: Option<&'a RawValue>,
}

/// A field that is there counts, and be it `null`: whoever sent the job is then told what is wrong with it.
pub(super) fn also_null<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stops<'a> {
    #[serde(borrow, default)]
    jobs_to_stop: Option<&'a RawValue>,
}

/// The jobs in the body of a take's answer. Of an entry that is none, its id at most is logged.
pub(super) fn read(body: &[u8], log: &Logger) -> Taken {
    let mut taken = Taken::default();
    let Ok(text) = std::str::from_utf8(body) else { return none(Empty::Unreadable) };
    let entries: Vec<&RawValue> = match text.trim_start().bytes().next() {
        None => return none(Empty::Idle),
        Some(b'[') => match serde_json::from_str(text) {
            Ok(entries) => entries,
            Err(_) => return none(Empty::Unreadable),
        },
        Some(_) => match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) if raw.get() == "null" => return none(Empty::Idle),
            Ok(raw) if raw.get().starts_with('{') => vec![raw],
            _ => return none(Empty::Unreadable),
        },
    };
    for entry in &entries {
        match job(entry, log) {
            Some(job) => taken.jobs.push(job),
            None => taken.malformed += 1,
        }
    }
    if taken.jobs.is_empty() {
        taken.empty = Some(if entries.is_empty() { Empty::Idle } else { Empty::Unreadable });
    }
    taken
}

/// An answer without jobs.
pub(super) fn none(why: Empty) -> Taken {
    Taken { empty: Some(why), ..Taken::default() }
}

fn job(raw: &RawValue, log: &Logger) -> Option<Job> {
    let Ok(entry) = serde_json::from_str::<Entry<'_>>(raw.get()) else {
        warn!(log, "job.malformed"; "reason" => "it is not an object, or has a field twice");
        return None;
    };
    let id: Option<JobId> = entry.id.and_then(|id| serde_json::from_str(id.get()).ok());
    let Some(id) = id else {
        warn!(log, "job.malformed"; "reason" => "it has no usable id");
        return None;
    };
    let Some(input) = entry.input else {
        warn!(log, "job.malformed"; "requestId" => id.as_str(), "reason" => "it has no input");
        return None;
    };
    let bucket = entry.bucket.and_then(|raw| bucket(raw, &id, log));
    Some(Job { id, tenant: TenantName::operator(), input: Secret::new(input.get().as_bytes().to_vec()), bucket })
}

fn bucket(raw: &RawValue, id: &JobId, log: &Logger) -> Option<Bucket> {
    let config = serde_json::from_str::<S3Config>(raw.get());
    if config.is_err() {
        warn!(log, "job.bucket_unusable"; "requestId" => id.as_str());
    }
    config.ok().map(Bucket::from)
}

/// The ids that are to be stopped; what is no id is passed over.
pub(super) fn stops(body: &[u8], log: &Logger) -> Vec<JobId> {
    let named = serde_json::from_slice::<Stops<'_>>(body).ok().and_then(|stops| stops.jobs_to_stop);
    let Some(named) = named else { return Vec::new() };
    let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(named.get()) else {
        warn!(log, "job.stop_malformed"; "reason" => "it is not a list");
        return Vec::new();
    };
    let ids: Vec<JobId> = entries.iter().filter_map(|entry| serde_json::from_str(entry.get()).ok()).collect();
    if ids.len() < entries.len() {
        warn!(log, "job.stop_malformed"; "entries" => entries.len() - ids.len());
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(body: &str) -> Taken {
        read(body.as_bytes(), &Logger::root(slog::Discard, slog::o!()))
    }

    #[test]
    fn a_job_or_a_list_is_read_and_the_input_stays_as_it_came() {
        let one = r#" {"id":"a-u1","delayTime":3,"input": { "b" : 1e2,"b":"\u00e9" } ,"error":"","webhook":"x"}"#;
        for body in [one.to_owned(), format!("[{one}]"), format!("\n[ {one} , {{\"id\":\"c\",\"input\":null}} ]")] {
            let taken = taken(&body);
            assert_eq!(taken.jobs[0].id.as_str(), "a-u1");
            assert_eq!(taken.jobs[0].input.text(), Some(r#"{ "b" : 1e2,"b":"\u00e9" }"#));
            assert_eq!((taken.malformed, taken.empty), (0, None));
        }
    }

    #[test]
    fn what_is_no_job_does_not_take_its_neighbours_with_it() {
        let body = r#"[{"id":"good","input":1},{"id":"x"},{"input":{}},{"id":7,"input":1},{"id":"a/b","input":1},4,null,
            {"id":"t","id":"t","input":1}]"#;
        let taken = taken(body);
        assert_eq!((taken.jobs.len(), taken.malformed, taken.empty), (1, 7, None));
    }

    #[test]
    fn an_answer_without_jobs_says_why() {
        for (body, malformed, why) in [
            ("", 0, Empty::Idle),
            ("[]", 0, Empty::Idle),
            ("null", 0, Empty::Idle),
            ("not json at all", 0, Empty::Unreadable),
            ("[{\"id\":\"a\",", 0, Empty::Unreadable),
            ("\"text\"", 0, Empty::Unreadable),
            ("7", 0, Empty::Unreadable),
            ("{}", 1, Empty::Unreadable),
            ("{\"id\":\"x\"}", 1, Empty::Unreadable),
        ] {
            let taken = taken(body);
            assert_eq!((taken.jobs.len(), taken.malformed, taken.empty), (0, malformed, Some(why)), "{body}");
        }
        assert_eq!(read(b"\xff", &Logger::root(slog::Discard, slog::o!())).empty, Some(Empty::Unreadable));
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(taken(&format!("{{\"id\":\"d\",\"input\":{deep}}}")).jobs.len(), 1, "depth costs no stack here");
    }

    #[test]
    fn a_jobs_own_bucket_is_taken_whole_or_not_at_all() {
        let with =
            |bucket: &str| taken(&format!(r#"{{"id":"a","input":1,"s3Config":{bucket}}}"#)).jobs.remove(0).bucket;
        let whole = r#"{"accessId":"i","accessSecret":"s","bucketName":"b","endpointUrl":"https://x.s3.eu-west-1.amazonaws.com","objectPath":"/p/q/","more":1}"#;
        let bucket = with(whole).expect("a bucket");
        assert_eq!((bucket.name.as_str(), bucket.region.as_str(), bucket.prefix.as_str()), ("b", "eu-west-1", "p/q"));
        assert!(bucket.brought);
        assert_eq!(with(r#"{"bucketName":"b"}"#), None);
        assert_eq!(with("null"), None);
        assert_eq!(with("[]"), None);
    }

    #[test]
    fn ids_to_stop_are_read_from_a_list_only() {
        let log = Logger::root(slog::Discard, slog::o!());
        let ids = |body: &str| stops(body.as_bytes(), &log).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(ids(r#"{"jobsToStop":["a",3,"b/c","d"]}"#), ["a", "d"]);
        for none in ["", "{}", r#"{"jobsToStop":"a"}"#, r#"{"jobsToStop":null}"#, "[]", "x"] {
            assert_eq!(ids(none), Vec::<String>::new(), "{none}");
        }
    }
}
