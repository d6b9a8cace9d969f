//! The id in the cookie of a server-side session: arbitrary ones, and those that this crate made.
//! The first bytes of an input choose the byte that an attacker changes.
#![no_main]

use std::{
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::UNIX_EPOCH,
};

use libfuzzer_sys::fuzz_target;
use session_manager::{
    Backend, Key, Manager, ServerSide, Store, StoreError, Timestamp,
    backend::OpenOutcome,
    fuzzing,
    store::{Applied, Entries, Record, StoreId, Verifier, Write},
};
use session_manager_fuzz::{also_long, bounded, server_side_id};

const SECRET: [u8; 32] = [7; 32];
/// A secret that never signs an id, as in the target `cookies`.
const UNUSED: [u8; 32] = [9; 32];
const NAME: &str = "_session";

/// A store with one record that counts its calls.
#[derive(Clone, Default)]
struct One(Arc<(AtomicUsize, Mutex<Option<(StoreId, Verifier)>>)>);

impl One {
    fn keep(&self, kept: Option<([u8; 32], [u8; 32])>) {
        let kept =
            kept.map(|(id, verifier)| (StoreId::from_bytes(id), Verifier::from_bytes(verifier)));
        *self.0.1.lock().unwrap() = kept;
    }

    /// Returns the number of loads since the last call.
    fn asked(&self) -> usize {
        self.0.0.swap(0, Ordering::Relaxed)
    }
}

impl Store for One {
    fn name(&self) -> &'static str {
        "one"
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        let kept = self.0.1.lock().unwrap().filter(|(kept, _)| *kept == id);
        Ok(kept.map(|(_, verifier)| {
            let mut record = Record::new(now, Timestamp::from_millis(1), Entries::default());
            record.verifier = verifier;
            record
        }))
    }

    async fn create(&self, _: StoreId, _: &Write) -> Result<bool, StoreError> {
        panic!("opening a session must not create one");
    }

    async fn apply(&self, _: StoreId, _: &Write) -> Result<Applied, StoreError> {
        panic!("opening a session must not write");
    }

    async fn destroy(&self, _: StoreId) -> Result<(), StoreError> {
        panic!("opening a session must not destroy one");
    }
}

struct Backends {
    store: One,
    unsigned: Arc<dyn Backend>,
    signed: Arc<dyn Backend>,
    unused: Arc<dyn Backend>,
    manager: Manager,
    elsewhere: Manager,
}

static BACKENDS: LazyLock<Backends> = LazyLock::new(|| {
    let store = One::default();
    let backend = || ServerSide::new(store.clone());
    let signed = |secret: [u8; 32]| backend().signed_with(Key::from_secret(secret).unwrap());
    let manager = |name| {
        let builder = Manager::builder(backend()).cookie_name(name);
        builder.clock(|| UNIX_EPOCH).build().unwrap()
    };
    Backends {
        unsigned: Arc::new(backend()),
        signed: Arc::new(signed(SECRET)),
        unused: Arc::new(signed(UNUSED)),
        manager: manager(NAME),
        elsewhere: manager("elsewhere"),
        store,
    }
});

/// Returns `true` if `text` has the form of an id, as a simple reference implementation.
fn is_id(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    // With 86 letters, the last four bits carry no data and must be zero.
    text.bytes().all(is_letter)
        && (text.len() == 64 || text.len() == 86 && text.ends_with(['A', 'Q', 'g', 'w']))
}

fn check(data: &[u8]) {
    let Some(([at, other], rest)) = data.split_first_chunk() else {
        return;
    };
    let backends = &*BACKENDS;
    let (store, settings) = (&backends.store, backends.manager.settings());
    let open = |backend, token: &str| {
        let opened = bounded(token.len(), || fuzzing::opened(backend, token, settings));
        (opened, store.asked())
    };

    // An arbitrary cookie: only an id reaches the store, and none does if ids are signed.
    store.keep(None);
    if let Ok(text) = str::from_utf8(rest) {
        match open(&backends.unsigned, text) {
            (OpenOutcome::Nothing, 1) => assert!(is_id(text), "{text}"),
            (OpenOutcome::Refused(_), 0) => assert!(!is_id(text), "{text}"),
            other => panic!("{other:?}"),
        }
        let (opened, asked) = open(&backends.unused, text);
        assert!(
            matches!(opened, OpenOutcome::Refused(_)) && asked == 0,
            "{opened:?}"
        );
    }

    // An id that this crate made.
    let mut id = [0; 48];
    for (byte, given) in id.iter_mut().zip(rest) {
        *byte = *given;
    }
    let made = server_side_id(&SECRET, NAME, &id);
    store.keep(Some((made.stored, made.verifier)));
    for (backend, token) in [
        (&backends.unsigned, &made.unsigned),
        (&backends.unsigned, &made.signed),
        (&backends.signed, &made.signed),
    ] {
        let (opened, asked) = open(backend, token);
        assert!(
            matches!(opened, OpenOutcome::Loaded(_)) && asked == 1,
            "{opened:?}"
        );
    }
    let (opened, asked) = open(&backends.signed, &made.unsigned);
    assert!(
        matches!(opened, OpenOutcome::Refused(_)) && asked == 0,
        "{opened:?}"
    );
    for token in [&made.unsigned, &made.signed] {
        let elsewhere = backends.elsewhere.settings();
        let opened = fuzzing::opened(&backends.unsigned, token, elsewhere);
        assert!(
            !matches!(opened, OpenOutcome::Loaded(_)),
            "under another name"
        );
        let opened = fuzzing::opened(&backends.signed, token, elsewhere);
        assert!(
            matches!(opened, OpenOutcome::Refused(_)),
            "under another name"
        );
    }
    store.asked();

    // An authentic id with one byte changed.
    let mut changed = made.signed.clone().into_bytes();
    let at = usize::from(*at) % changed.len();
    changed[at] = *other;
    if let Ok(changed) = String::from_utf8(changed)
        && changed != made.signed
    {
        let (opened, asked) = open(&backends.signed, &changed);
        assert!(
            matches!(opened, OpenOutcome::Refused(_)) && asked == 0,
            "{opened:?}"
        );
        if at < 64 {
            let (opened, _) = open(&backends.unsigned, &changed[..64]);
            assert!(!matches!(opened, OpenOutcome::Loaded(_)), "{opened:?}");
        }
    }
}

fuzz_target!(|data: &[u8]| also_long(data, check));
