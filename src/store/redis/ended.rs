//! Sessions that end, through `PUBLISH` and `SUBSCRIBE`.

use std::{future::poll_fn, pin::pin};

use futures_core::Stream;
use redis::{RedisError, aio::PubSub};

use super::{NAME, RedisStore};
use crate::store::{
    StoreError,
    endings::{Endings, Publish, Receive, follow},
};

impl RedisStore {
    /// The channel on which `destroy.lua` reports.
    pub(super) fn channel(&self) -> String {
        format!("{}ended", self.prefix)
    }

    pub(super) async fn follow(&self, endings: &Endings) -> Result<(), StoreError> {
        let failed = |error: RedisError| StoreError::failed(NAME, error);
        let subscribed = self.link.subscribe(&self.channel()).await;
        match subscribed.map_err(failed)? {
            Some(subscription) => follow(NAME, endings, self, Subscription(subscription)).await,
            None => Ok(()),
        }
    }
}

impl Publish for RedisStore {
    async fn publish(&self, text: &str) -> Result<(), StoreError> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.channel()).arg(text);
        self.send(&publish).await.map(drop)
    }
}

struct Subscription(PubSub);

impl Receive for Subscription {
    async fn receive(&mut self) -> Result<String, StoreError> {
        let mut messages = pin!(self.0.on_message());
        match poll_fn(|context| messages.as_mut().poll_next(context)).await {
            Some(message) => Ok(message.get_payload().unwrap_or_default()),
            None => Err(StoreError::failed(
                NAME,
                std::io::Error::from(std::io::ErrorKind::UnexpectedEof),
            )),
        }
    }
}
