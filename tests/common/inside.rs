//! Stores of a test that change one method of the store inside them.

/// Writes the methods of `Store` that ask the store in the first field.
macro_rules! store_inside {
    () => {
        async fn load(
            &self,
            id: session_manager::store::StoreId,
            now: session_manager::Timestamp,
        ) -> Result<Option<session_manager::store::Record>, session_manager::StoreError> {
            self.0.load(id, now).await
        }

        async fn create(
            &self,
            id: session_manager::store::StoreId,
            write: &session_manager::store::Write,
        ) -> Result<bool, session_manager::StoreError> {
            self.0.create(id, write).await
        }

        async fn apply(
            &self,
            id: session_manager::store::StoreId,
            write: &session_manager::store::Write,
        ) -> Result<session_manager::store::Applied, session_manager::StoreError> {
            self.0.apply(id, write).await
        }

        async fn destroy(
            &self,
            id: session_manager::store::StoreId,
        ) -> Result<(), session_manager::StoreError> {
            self.0.destroy(id).await
        }
    };
}

/// Writes the methods of `UserIndex` that ask the index in the first field.
macro_rules! index_inside {
    () => {
        fn sessions_of<'a>(
            &'a self,
            user: &'a str,
            from: &'a [u8],
            now: session_manager::Timestamp,
        ) -> session_manager::backend::BackendFuture<
            'a,
            Result<
                session_manager::store::Page<session_manager::store::SessionSummary>,
                session_manager::StoreError,
            >,
        > {
            self.0.sessions_of(user, from, now)
        }

        fn ids_of<'a>(
            &'a self,
            user: &'a str,
            from: &'a [u8],
        ) -> session_manager::backend::BackendFuture<
            'a,
            Result<
                session_manager::store::Page<session_manager::store::StoreId>,
                session_manager::StoreError,
            >,
        > {
            self.0.ids_of(user, from)
        }

        fn destroy_of<'a>(
            &'a self,
            user: &'a str,
            ids: &'a [session_manager::store::StoreId],
        ) -> session_manager::backend::BackendFuture<'a, Result<usize, session_manager::StoreError>>
        {
            self.0.destroy_of(user, ids)
        }
    };
}

pub(crate) use {index_inside, store_inside};
