//! A backend's future must be `Send`, because tower's are.

use std::rc::Rc;

use session_manager::{Error, backend::{BackendFuture, OpenOutcome}};

fn main() {
    let not_send = Rc::new(());
    let _: BackendFuture<'_, Result<OpenOutcome, Error>> = BackendFuture::pending(async move {
        std::future::ready(()).await;
        drop(not_send);
        Ok(OpenOutcome::Nothing)
    });
}
