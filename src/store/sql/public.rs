//! The public interface that the stores of all SQL databases share.

/// Writes the public type of a store: what it says about itself, and the dialect it is of.
macro_rules! sql_store {
    ($(#[$docs:meta])* pub struct $store:ident($dialect:ty, from $pool:ty);) => {
        $(#[$docs])*
        pub struct $store($crate::store::sql::SqlStore<$dialect>);

        impl $store {
            /// Connects, and creates the table `sessions` if it is missing
            /// ([`migrate`](Self::migrate)).
            ///
            /// # Errors
            ///
            /// At once if the server is down or refuses; after 5 seconds if it does not answer. No
            /// error shows the url.
            pub async fn connect(url: impl AsRef<str>) -> Result<Self, $crate::store::StoreError> {
                let store = Self::connect_lazy(url)?;
                store.finish_connecting().await?;
                Ok(store)
            }

            /// Creates the store without asking the database or creating the table:
            /// for starting while it is down, and for another [`table`](Self::with_table).
            ///
            /// # Errors
            ///
            /// If the url is not one of this database.
            ///
            /// # Panics
            ///
            /// Outside of a tokio runtime.
            pub fn connect_lazy(url: impl AsRef<str>) -> Result<Self, $crate::store::StoreError> {
                $crate::store::sql::SqlStore::open(url.as_ref()).map(Self)
            }

            /// Does what [`connect`](Self::connect) does after
            /// [`connect_lazy`](Self::connect_lazy).
            pub(crate) async fn finish_connecting(&self) -> Result<(), $crate::store::StoreError> {
                self.0.connect().await
            }

            /// Keeps sessions where the application keeps the rest.
            ///
            /// Creates nothing: call [`migrate`](Self::migrate), or let your own migrations create
            /// the table as its documentation says. A pool tests each connection before it is used,
            /// which is one more round trip, unless it was built with `test_before_acquire(false)`.
            /// It also tests each connection that it takes back, while no caller waits for it. The
            /// pool that [`connect`](Self::connect) makes does neither.
            ///
            /// The pool must lead to the server that takes the writes, for reads too: a replica
            /// opens a session that was ended until it has received that.
            pub fn from_pool(pool: $pool) -> Self {
                Self($crate::store::sql::SqlStore::from_pool(pool))
            }

            /// Keeps sessions in another table than `sessions`.
            ///
            /// # Errors
            ///
            /// If the name is anything but lower-case letters, digits and `_`, begins with a digit,
            /// or is longer than 48.
            pub fn with_table(self, name: &str) -> Result<Self, $crate::store::StoreError> {
                self.0.with_table(name).map(Self)
            }

            /// Creates the table and its two indexes if the table is missing.
            ///
            /// Any number of processes may do so at the same time. A table that is there is left as
            /// it is, so that from then on the role needs no right but to read and write it.
            ///
            /// # Errors
            ///
            /// If the database refuses, or has another table of that name.
            pub async fn migrate(&self) -> Result<(), $crate::store::StoreError> {
                self.0.migrate().await
            }

            /// Deletes the rows whose time is over, a hundred at a time, over an index; returns
            /// how many there were. After each hundred it waits for as long as they took, so that
            /// requests go on.
            ///
            /// A session that is used stays where it is in that index. A sweep moves it on, once per
            /// idle timeout at most.
            ///
            /// Such rows are never served, swept or not: this frees their room. The present moment
            /// is the system's, not that of a clock which a [`Builder`](crate::Builder) was given.
            ///
            /// # Errors
            ///
            /// If the database fails; what was deleted until then stays deleted.
            pub async fn sweep(&self) -> Result<u64, $crate::store::StoreError> {
                self.0.sweep().await
            }

            /// Sweeps now and then again and again, `every` so often, until the handle is dropped.
            /// An error is logged, and the next sweep tries again.
            ///
            /// Several processes may sweep the same table.
            ///
            /// # Panics
            ///
            /// Outside of a tokio runtime.
            pub fn start_sweeping(&self, every: std::time::Duration) -> $crate::store::SweepHandle {
                $crate::store::SweepHandle::start(self.0.clone(), every)
            }
        }

        /// Another handle of the same store.
        impl Clone for $store {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        /// Shows the table's name, and no part of the url.
        impl std::fmt::Debug for $store {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($store))
                    .field("table", &self.0.table())
                    .finish_non_exhaustive()
            }
        }

        impl $crate::store::Store for $store {
            fn name(&self) -> &'static str {
                <$dialect as $crate::store::sql::Dialect>::NAME
            }

            async fn load(
                &self,
                id: $crate::record::id::StoreId,
                now: $crate::expiry::Timestamp,
            ) -> Result<Option<$crate::record::Record>, $crate::store::StoreError> {
                self.0.load(id, now).await
            }

            async fn create(
                &self,
                id: $crate::record::id::StoreId,
                write: &$crate::changes::write::Write,
            ) -> Result<bool, $crate::store::StoreError> {
                self.0.create(id, write).await
            }

            async fn apply(
                &self,
                id: $crate::record::id::StoreId,
                write: &$crate::changes::write::Write,
            ) -> Result<$crate::changes::write::Applied, $crate::store::StoreError> {
                self.0.apply(id, write).await
            }

            async fn destroy(&self, id: $crate::record::id::StoreId) -> Result<(), $crate::store::StoreError> {
                self.0.destroy(id).await
            }

            fn users(&self) -> Option<&dyn $crate::store::UserIndex> {
                Some(self)
            }

            async fn watch_ended(
                &self,
                endings: &$crate::store::Endings,
            ) -> Result<(), $crate::store::StoreError> {
                <$dialect as $crate::store::sql::Dialect>::watch_ended(&self.0, endings).await
            }
        }

        impl $crate::store::UserIndex for $store {
            fn sessions_of<'a>(
                &'a self,
                user: &'a str,
                from: &'a [u8],
                now: $crate::expiry::Timestamp,
            ) -> $crate::future::BackendFuture<
                'a,
                Result<$crate::store::Page<$crate::store::SessionSummary>, $crate::store::StoreError>,
            > {
                $crate::future::BackendFuture::pending(self.0.sessions_of(user, from, now))
            }

            fn ids_of<'a>(
                &'a self,
                user: &'a str,
                from: &'a [u8],
            ) -> $crate::future::BackendFuture<
                'a,
                Result<$crate::store::Page<$crate::record::id::StoreId>, $crate::store::StoreError>,
            > {
                $crate::future::BackendFuture::pending(self.0.ids_of(user, from))
            }

            fn destroy_of<'a>(
                &'a self,
                user: &'a str,
                ids: &'a [$crate::record::id::StoreId],
            ) -> $crate::future::BackendFuture<'a, Result<usize, $crate::store::StoreError>> {
                $crate::future::BackendFuture::pending(self.0.destroy_of(user, ids))
            }

            fn limit(&self) -> Option<&dyn $crate::store::UserLimit> {
                Some(self)
            }
        }

        impl $crate::store::UserLimit for $store {
            fn reserve<'a>(
                &'a self,
                user: &'a str,
                place: &'a $crate::store::Reservation,
            ) -> $crate::future::BackendFuture<'a, Result<bool, $crate::store::StoreError>> {
                $crate::future::BackendFuture::pending(self.0.reserve(user, place))
            }
        }
    };
}
pub(crate) use sql_store;
