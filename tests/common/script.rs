//! A route that runs the steps in its path on the session, so that a test reads as a list of requests.

use serde::Serialize;
use session_manager::{Error, Evict, Session};

use super::app::Page;

/// Runs a script such as `add.key.value,get.key`. Returns the results, joined by commas.
pub fn run(session: &Session, script: &str) -> Result<Page, Error> {
    let mut page = Page::from("");
    let mut answers = Vec::new();
    for step in script.split(',') {
        let mut words = step.split('.');
        let (verb, key, value) = (
            words.next().unwrap(),
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let answer = match verb {
            "add" => outcome(session.add(key, value)),
            // `fill.key.N` adds N bytes, which would not fit into a path.
            "fill" => outcome(session.add(key, "x".repeat(value.parse().unwrap()))),
            // `deep.key.N` adds N nested arrays; `depth.key` counts them.
            "deep" => outcome(session.add(key, Nested(value.parse().unwrap()))),
            "depth" => outcome(
                session
                    .load(key)
                    .map(|value| value.map(|Nested(depth)| depth)),
            ),
            // `many.prefix.N` adds N keys with numbers; `sum.prefix.N` adds the numbers up.
            "many" => outcome(many(value).try_for_each(|n| session.add(&format!("{key}{n}"), n))),
            "sum" => {
                let mut each = many(value).map(|n| session.load::<u64>(&format!("{key}{n}")));
                outcome(each.try_fold(0, |sum, n| Ok(sum + n?.unwrap_or_default())))
            }
            "nan" => outcome(session.add(key, f64::NAN)),
            "get" => session.get(key).unwrap_or("none".into()),
            "pop" => session.pop(key).unwrap_or("none".into()),
            "number" => outcome(session.load::<i64>(key)),
            "popnumber" => outcome(session.pop_load::<i64>(key)),
            "count" => outcome(session.update(key, |count: Option<i64>| count.unwrap_or(0) + 1)),
            "contains" => session.contains_key(key).to_string(),
            "keys" => session.keys().join("+"),
            "len" => session.len().to_string(),
            "size" => session.size().map_or(0, |size| size.used).to_string(),
            "empty" => session.is_empty().to_string(),
            "flash" => outcome(session.flash(key)),
            "flashes" => {
                let texts = session.flashes().into_iter().map(|message| message.text);
                texts.collect::<Vec<_>>().join("+")
            }
            "handle" => session.handle().unwrap_or("none".into()),
            "user" => outcome(session.set_user(key)),
            "note" => outcome(session.set_note(key)),
            "renew" => done(|| session.renew()),
            "destroy" => done(|| session.destroy()),
            "clear" => done(|| session.clear()),
            "status" => done(|| page.status = key.parse().unwrap()),
            "error" => done(|| (page.status, page.is_error) = (500, true)),
            "panic" => panic!("a handler that panics, as the test asked"),
            other => panic!("no step is called {other}"),
        };
        answers.push(answer);
    }
    page.body = answers.join(",");
    Ok(page)
}

fn many(count: &str) -> std::ops::Range<u64> {
    0..count.parse().unwrap()
}

/// Nested arrays.
struct Nested(usize);

impl Serialize for Nested {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = (self.0 > 1).then(|| Self(self.0 - 1));
        serializer.collect_seq(inner)
    }
}

impl<'de> serde::Deserialize<'de> for Nested {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let inner = Vec::<Self>::deserialize(deserializer)?;
        Ok(Self(1 + inner.first().map_or(0, |inner| inner.0)))
    }
}

/// Runs a script like [`run`], with the steps that await: `save`, `revalidate`, `take`, `takenumber`,
/// `countnow` and `limit`.
pub async fn run_outside(session: &Session, script: &str) -> String {
    let mut answers = Vec::new();
    for step in script.split(',') {
        let (verb, key) = step.split_once('.').unwrap_or((step, ""));
        answers.push(match verb {
            "save" => outcome(session.save().await),
            "revalidate" => outcome(session.revalidate().await),
            "take" => outcome(session.take::<String>(key).await),
            "takenumber" => outcome(session.take::<i64>(key).await),
            // `limit.user.N.refuse` or `limit.user.N.oldest`.
            "limit" => outcome(limit(session, key).await),
            "countnow" => outcome(session.update_now(key, next).await),
            _ => run(session, step).unwrap().body,
        });
    }
    answers.join(",")
}

async fn limit(session: &Session, words: &str) -> Result<(), Error> {
    let mut words = words.split('.');
    let (user, max) = (words.next().unwrap(), words.next().unwrap());
    let evict = match words.next().unwrap() {
        "oldest" => Evict::Oldest,
        _ => Evict::Refuse,
    };
    let max = max.parse().unwrap();
    session.set_user_limited(user, max, evict).await
}

fn next(count: Option<i64>) -> i64 {
    count.unwrap_or(0) + 1
}

fn outcome<T: Serialize>(result: Result<T, Error>) -> String {
    match result {
        Ok(value) => serde_json::to_string(&value).unwrap(),
        Err(Error::TooLarge { size, limit, .. }) => format!("too large {size} of {limit}"),
        Err(Error::Unserializable { .. }) => "unserializable".into(),
        Err(Error::WrongType { .. }) => "wrong type".into(),
        Err(Error::HeadSent) => "head sent".into(),
        Err(Error::ReadOnly) => "read only".into(),
        Err(Error::Ended) => "ended".into(),
        Err(Error::Unavailable { .. }) => "unavailable".into(),
        Err(Error::ReservedKey) => "reserved".into(),
        Err(Error::TooManySessions { .. }) => "too many".into(),
        Err(Error::ZeroLimit) => "no sessions".into(),
        Err(Error::NoUserIndex { .. }) => "no index".into(),
        Err(Error::NoUserLimit { .. }) => "no limit".into(),
        Err(Error::NeedsStore { .. }) => "needs store".into(),
        Err(error) => panic!("{error}"),
    }
}

fn done(step: impl FnOnce()) -> String {
    step();
    "done".into()
}
