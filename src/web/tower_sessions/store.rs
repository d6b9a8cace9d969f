//! A store of this crate as a store of tower-sessions.

use std::{collections::HashMap, fmt};

use async_trait::async_trait;
use serde_json::Value as Json;
use time::OffsetDateTime;

use super::{Data, encode};
use crate::{
    error::{Error, chain},
    expiry::Timestamp,
    session::check_key,
    store::Store,
    web::bridge::{
        json,
        kept::{Kept, LOADED, Values},
    },
};

/// Lets an application that keeps `SessionManagerLayer` store its sessions in any [`Store`] of this
/// crate. It implements `SessionStore` of tower-sessions-core 0.15, and of 0.14 with the feature
/// `tower-sessions-0-14`.
///
/// ```
/// use session_manager::{MemoryStore, web::StoreForTowerSessions};
/// use tower_sessions::SessionManagerLayer;
///
/// let layer = SessionManagerLayer::new(StoreForTowerSessions::new(MemoryStore::default()));
/// ```
///
/// A `SessionStore` gets whole records. So that writes still merge by key, a loaded session carries
/// what was loaded under one more key, which begins with U+0002 and is not stored:
///
/// | | through `SessionStore` |
/// |---|---|
/// | overlapping requests that write different keys lose nothing | yes, unless one of them calls `clear` |
/// | `update` applies each overlapping update | no: the trait has no such method |
/// | a log-out wins every race | yes: what a late request saves is dropped, and logged |
/// | a renewal never logs out | no: `cycle_id` deletes the record before it creates another one |
/// | the store gets only hashes of the id | yes |
/// | a new session never overwrites a live one | yes: it gets another id |
/// | an expired session is not served | yes |
/// | a time limit for every call | yes: 2 seconds |
/// | idle timeout, absolute timeout | those of `SessionManagerLayer` |
/// | a record that was deleted is created again by `save` | no |
/// | inside of a `CachingSessionStore` | no: a cached record carries what an older request loaded |
pub struct StoreForTowerSessions<S>(Kept<S>);

impl<S: Store> StoreForTowerSessions<S> {
    /// Creates a store of tower-sessions that keeps its sessions in `store`.
    ///
    /// `store` may be the one of a [`ServerSide`](crate::ServerSide): neither finds the other's
    /// sessions.
    pub fn new(store: S) -> Self {
        Self(Kept::new(store, "tower-sessions"))
    }

    async fn create_record(&self, id: i128, data: &mut Data, date: OffsetDateTime) -> Saved<bool> {
        data.remove(LOADED);
        let values = Values {
            set: encoded(data.iter())?,
            ..Values::default()
        };
        let key = id.to_be_bytes();
        let created = self.0.create(&key, values, timestamp(date)).await;
        let created = created.map_err(failed)?;
        data.insert(LOADED.to_owned(), snapshot(data));
        Ok(created)
    }

    async fn save_record(&self, id: i128, data: &Data, date: OffsetDateTime) -> Saved<()> {
        let mut values = Values::default();
        let present = data.iter().filter(|(key, _)| *key != LOADED);
        match data.get(LOADED).and_then(Json::as_object) {
            Some(loaded) => {
                let gone = loaded.keys().filter(|key| !data.contains_key(*key));
                values.remove = gone.map(|key| key.as_str().into()).collect();
                values.set = encoded(present.filter(|(key, json)| loaded.get(*key) != Some(json)))?;
            }
            // Cleared, perhaps without being loaded.
            None => {
                values.clear = true;
                values.set = encoded(present)?;
            }
        }
        let key = id.to_be_bytes();
        let merged = self.0.merge(&key, values, timestamp(date)).await;
        merged.map_err(failed)
    }

    async fn load_record(&self, id: i128) -> Saved<Option<(Data, OffsetDateTime)>> {
        let found = self.0.load(&id.to_be_bytes()).await.map_err(failed)?;
        let Some(record) = found else { return Ok(None) };
        let mut data = HashMap::new();
        for (key, value) in record.entries.iter() {
            let json = json(value).map_err(|why| Failure::Decode(why.to_string()))?;
            data.insert(key.to_owned(), json);
        }
        data.insert(LOADED.to_owned(), snapshot(&data));
        let millis = i64::try_from(record.expires.millis()).unwrap_or(i64::MAX);
        let date = OffsetDateTime::UNIX_EPOCH.saturating_add(time::Duration::milliseconds(millis));
        Ok(Some((data, date)))
    }
}

/// Returns another handle of the same store.
impl<S> Clone for StoreForTowerSessions<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Shows the store's name only.
impl<S: Store> fmt::Debug for StoreForTowerSessions<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreForTowerSessions")
            .field(&self.0)
            .finish()
    }
}

/// Why a call failed, in the terms of both versions of the trait.
enum Failure {
    Encode(String),
    Decode(String),
    Backend(String),
}

type Saved<T> = Result<T, Failure>;

fn failed(error: crate::store::StoreError) -> Failure {
    Failure::Backend(chain(&Error::from(error)).to_string())
}

fn snapshot(data: &Data) -> Json {
    Json::Object(data.clone().into_iter().collect())
}

fn encoded<'a>(
    data: impl Iterator<Item = (&'a String, &'a Json)>,
) -> Saved<Vec<(Box<str>, crate::value::Value)>> {
    data.map(|(key, json)| {
        check_key(key).map_err(|why| Failure::Encode(why.to_string()))?;
        Ok((key.as_str().into(), encode(json)))
    })
    .collect()
}

/// A date before 1970 becomes 1970, so that the record is expired.
fn timestamp(date: OffsetDateTime) -> Timestamp {
    let millis = (date - OffsetDateTime::UNIX_EPOCH).whole_milliseconds();
    Timestamp::from_millis(u64::try_from(millis.max(0)).unwrap_or(u64::MAX))
}

/// Implements the trait of one version of tower-sessions-core.
macro_rules! session_store {
    ($core:ident) => {
        const _: () = {
            use $core::{
                SessionStore,
                session::{Id, Record},
                session_store::{Error, Result},
            };

            fn theirs(failure: Failure) -> Error {
                match failure {
                    Failure::Encode(why) => Error::Encode(why),
                    Failure::Decode(why) => Error::Decode(why),
                    Failure::Backend(why) => Error::Backend(why),
                }
            }

            #[async_trait]
            impl<S: Store> SessionStore for StoreForTowerSessions<S> {
                async fn create(&self, record: &mut Record) -> Result<()> {
                    let date = record.expiry_date;
                    loop {
                        let created = self.create_record(record.id.0, &mut record.data, date);
                        if created.await.map_err(theirs)? {
                            return Ok(());
                        }
                        record.id = Id::default();
                    }
                }

                async fn save(&self, record: &Record) -> Result<()> {
                    let saved = self.save_record(record.id.0, &record.data, record.expiry_date);
                    saved.await.map_err(theirs)
                }

                async fn load(&self, id: &Id) -> Result<Option<Record>> {
                    let found = self.load_record(id.0).await.map_err(theirs)?;
                    Ok(found.map(|(data, expiry_date)| Record {
                        id: *id,
                        data,
                        expiry_date,
                    }))
                }

                async fn delete(&self, id: &Id) -> Result<()> {
                    let deleted = self.0.delete(&id.0.to_be_bytes()).await;
                    deleted.map_err(|error| theirs(failed(error)))
                }
            }
        };
    };
}

session_store!(tower_sessions_core);
#[cfg(feature = "tower-sessions-0-14")]
session_store!(tower_sessions_core_0_14);
