//! What a store reports of records that end.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::record::id::StoreId;

/// Takes what a store reports of records that were destroyed: see
/// [`Store::watch_ended`](crate::Store::watch_ended).
///
/// A report is a hint: the session is then loaded, and what is stored decides. A false report
/// therefore ends no session, and costs one load if that session is awaited.
///
/// Clones report to the same backend.
#[derive(Clone, Default)]
pub struct Endings(Arc<Mutex<Heard>>);

/// The first bytes of an id. Reports between processes carry no more of it, so that a listener
/// learns no id.
pub(crate) type Tag = [u8; 8];

/// What was reported since it was last taken.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) tags: Vec<Tag>,
    /// Whether every record that is destroyed is reported.
    pub(crate) is_complete: bool,
    /// Whether that became so since the last time, so that ends before may have been missed.
    pub(crate) begins: bool,
    is_new: bool,
    waker: Option<Waker>,
}

impl Endings {
    /// Says that from now on every record that is destroyed is reported. All sessions that are
    /// awaited are loaded once more, so that none that ended before is missed, and rarely after
    /// that.
    pub fn complete(&self) {
        self.tell(|heard| {
            heard.begins |= !heard.is_complete;
            heard.is_new |= heard.begins;
            heard.is_complete = true;
        });
    }

    /// Says that the record under `id` was destroyed.
    pub fn ended(&self, id: StoreId) {
        self.ended_like(tag_of(id));
    }

    pub(crate) fn ended_like(&self, tag: Tag) {
        self.tell(|heard| {
            heard.tags.push(tag);
            heard.is_new = true;
        });
    }

    /// Wakes the task that takes reports.
    pub(crate) fn wake(&self) {
        self.tell(|heard| heard.is_new = true);
    }

    /// Says that reports may be missing. Returns whether they were complete.
    pub(crate) fn broken(&self) -> bool {
        let mut was_complete = false;
        self.tell(|heard| {
            was_complete = std::mem::replace(&mut heard.is_complete, false);
            heard.is_new |= was_complete;
        });
        was_complete
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, tell: impl FnOnce(&mut Heard)) {
        let mut heard = self.heard();
        tell(&mut heard);
        let waker = heard.is_new.then(|| heard.waker.take()).flatten();
        drop(heard);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Returns what was reported, once anything was.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Heard> {
        let mut heard = self.heard();
        if !heard.is_new {
            heard.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        heard.is_new = false;
        Poll::Ready(Heard {
            tags: std::mem::take(&mut heard.tags),
            is_complete: heard.is_complete,
            begins: std::mem::take(&mut heard.begins),
            is_new: false,
            waker: None,
        })
    }
}

impl fmt::Debug for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endings").finish_non_exhaustive()
    }
}

pub(crate) fn tag_of(id: StoreId) -> Tag {
    let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
    [a, b, c, d, e, f, g, h]
}

#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) use channel::{Publish, Receive, follow};

/// Reports that reach other processes through a channel of the database.
#[cfg(any(feature = "postgres", feature = "redis"))]
mod channel {
    use std::time::Duration;

    use tokio::time::{Instant, timeout, timeout_at};

    use super::{Endings, Tag};
    use crate::{random, store::StoreError};

    /// How often a message of its own shows that the subscription still receives what is published.
    const PROBE_EVERY: Duration = Duration::from_secs(15);
    /// How long such a message may take.
    const PROBE_LIMIT: Duration = Duration::from_secs(2);

    pub(crate) trait Publish: Sync {
        /// Publishes `text` on a connection that is not the subscription's.
        fn publish(&self, text: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
    }

    pub(crate) trait Receive: Send {
        /// Waits for the next message. Dropped before that, it has lost none.
        fn receive(&mut self) -> impl Future<Output = Result<String, StoreError>> + Send;
    }

    /// Takes reports from a subscription until it breaks.
    ///
    /// The subscription counts as complete once a message of its own came back: a user without the
    /// right to publish, a pooler that shares connections, and a connection that died without a
    /// sign all look like silence.
    pub(crate) async fn follow(
        store: &'static str,
        endings: &Endings,
        publish: &impl Publish,
        mut subscription: impl Receive,
    ) -> Result<(), StoreError> {
        let late = || StoreError::TimedOut {
            store,
            millis: PROBE_LIMIT.as_millis() as u64,
        };
        loop {
            let mut nonce = [0; 8];
            random::fill(&mut nonce);
            let probe = format!("probe {:016x}", u64::from_ne_bytes(nonce));
            let mut until = Instant::now() + PROBE_LIMIT;
            let sent = timeout(PROBE_LIMIT, publish.publish(&probe)).await;
            sent.map_err(|_| late())??;
            let mut is_answered = false;
            loop {
                match timeout_at(until, subscription.receive()).await {
                    Ok(text) => {
                        let text = text?;
                        if text == probe {
                            is_answered = true;
                            until = Instant::now() + PROBE_EVERY;
                            endings.complete();
                        } else if let Some(tag) = parse(&text) {
                            endings.ended_like(tag);
                        }
                    }
                    Err(_) if is_answered => break,
                    Err(_) => return Err(late()),
                }
            }
        }
    }

    /// Parses the 16 hexadecimal digits of a tag.
    fn parse(text: &str) -> Option<Tag> {
        let is_tag = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let tag = u64::from_str_radix(text, 16).ok().filter(|_| is_tag)?;
        Some(tag.to_be_bytes())
    }

    #[cfg(test)]
    mod tests {
        use std::{
            pin::pin,
            sync::Mutex,
            task::{Context, Poll, Waker},
        };

        use tokio::sync::mpsc;

        use super::*;

        struct Echo(Mutex<Vec<String>>, Option<mpsc::UnboundedSender<String>>);

        impl Publish for Echo {
            async fn publish(&self, text: &str) -> Result<(), StoreError> {
                self.0.lock().unwrap().push(text.to_owned());
                if let Some(sender) = &self.1 {
                    let _ = sender.send(text.to_owned());
                }
                Ok(())
            }
        }

        impl Receive for mpsc::UnboundedReceiver<String> {
            async fn receive(&mut self) -> Result<String, StoreError> {
                Ok(self.recv().await.unwrap())
            }
        }

        fn heard(endings: &Endings) -> Option<super::super::Heard> {
            match endings.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(heard) => Some(heard),
                Poll::Pending => None,
            }
        }

        #[tokio::test(start_paused = true)]
        async fn a_subscription_that_is_deaf_never_counts_as_complete_and_ends() {
            let (_sender, receiver) = mpsc::unbounded_channel();
            let (endings, echo) = (Endings::default(), Echo(Mutex::default(), None));
            let ended = follow("test", &endings, &echo, receiver).await;
            assert!(matches!(ended, Err(StoreError::TimedOut { .. })));
            assert!(heard(&endings).is_none());
        }

        #[tokio::test(start_paused = true)]
        async fn a_subscription_is_probed_again_and_takes_only_tags() {
            let (sender, receiver) = mpsc::unbounded_channel();
            let endings = Endings::default();
            let echo = Echo(Mutex::default(), Some(sender.clone()));
            let mut following = pin!(follow("test", &endings, &echo, receiver));
            for text in ["", "probe 0", "00000000000000ff", "é", "+000000000000001"] {
                sender.send(text.to_owned()).unwrap();
            }
            assert!(timeout(4 * PROBE_EVERY, &mut following).await.is_err());
            let heard = heard(&endings).unwrap();
            assert!(heard.is_complete);
            assert_eq!(heard.tags, [[0, 0, 0, 0, 0, 0, 0, 255]]);
            assert!(echo.0.lock().unwrap().len() >= 4);
        }
    }
}
