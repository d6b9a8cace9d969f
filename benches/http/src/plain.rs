//! The floors: sessions by hand, one text per row, read by primary key and written whole, without
//! any promise. A write reads first, as a request with a session does.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, header},
    routing::get,
};
use redis::{AsyncCommands, aio::MultiplexedConnection};
use sqlx::{
    MySqlPool, PgPool, SqlitePool, mysql::MySqlPoolOptions, postgres::PgPoolOptions, sqlite,
    sqlite::SqlitePoolOptions,
};

/// As long as the JSON of the other applications' sessions.
const DATA: &str =
    r#"{"user":"5f0c9a52-7b1e-4a5c-9d57-0f6f3c1e8b21","name":"Ada Lovelace","visits":41}"#;
const NEW_DATA: &str =
    r#"{"user":"c21f7d0e-93b4-4c1a-8a6e-52d90b7f4e63","name":"Grace Hopper","visits":42}"#;

static SESSIONS: AtomicU64 = AtomicU64::new(0);

trait Rows: Clone + Send + Sync + 'static {
    fn insert(&self, id: &str) -> impl Future<Output = ()> + Send;
    fn select(&self, id: &str) -> impl Future<Output = String> + Send;
    fn update(&self, id: &str) -> impl Future<Output = ()> + Send;
}

fn id(headers: &HeaderMap) -> &str {
    let cookie = headers[header::COOKIE].to_str().unwrap();
    cookie.strip_prefix("id=").unwrap()
}

fn routes<R: Rows>(rows: R) -> Router {
    let begin = async |State(rows): State<R>| {
        let id = format!("{:064x}", SESSIONS.fetch_add(1, Relaxed));
        rows.insert(&id).await;
        ([(header::SET_COOKIE, format!("id={id}"))], "done")
    };
    let read = async |State(rows): State<R>, headers: HeaderMap| {
        assert_eq!(rows.select(id(&headers)).await, DATA);
        "done"
    };
    let write = async |State(rows): State<R>, headers: HeaderMap| {
        rows.select(id(&headers)).await;
        rows.update(id(&headers)).await;
        "done"
    };
    let written = async |State(rows): State<R>, headers: HeaderMap| {
        assert_eq!(rows.select(id(&headers)).await, NEW_DATA);
        "done"
    };
    Router::new()
        .route("/untouched", get(async || "done"))
        .route("/begin", get(begin))
        .route("/read-three", get(read))
        .route("/write-three", get(write))
        .route("/written", get(written))
        .with_state(rows)
}

impl Rows for MultiplexedConnection {
    async fn insert(&self, id: &str) {
        let () = self.clone().set_ex(id, DATA, 3600).await.unwrap();
    }

    async fn select(&self, id: &str) -> String {
        self.clone().get(id).await.unwrap()
    }

    async fn update(&self, id: &str) {
        let () = self.clone().set_ex(id, NEW_DATA, 3600).await.unwrap();
    }
}

pub(crate) async fn redis(url: &str) -> Router {
    let client = redis::Client::open(url).unwrap();
    routes(client.get_multiplexed_async_connection().await.unwrap())
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS plain \
     (id VARCHAR(64) PRIMARY KEY, data TEXT NOT NULL, version BIGINT NOT NULL)";

macro_rules! sql_rows {
    ($pool:ty, $insert:literal, $select:literal, $update:literal, $run_update:ident) => {
        impl Rows for $pool {
            async fn insert(&self, id: &str) {
                let insert = sqlx::query($insert).bind(id).bind(DATA);
                insert.execute(self).await.unwrap();
            }

            async fn select(&self, id: &str) -> String {
                let select = sqlx::query_scalar($select).bind(id);
                select.fetch_one(self).await.unwrap()
            }

            async fn update(&self, id: &str) {
                let update = sqlx::query($update).bind(NEW_DATA).bind(id);
                update.$run_update(self).await.unwrap();
            }
        }
    };
}

sql_rows!(
    PgPool,
    "INSERT INTO plain VALUES ($1, $2, 0)",
    "SELECT data FROM plain WHERE id = $1",
    "UPDATE plain SET data = $1, version = version + 1 WHERE id = $2 RETURNING version",
    fetch_one
);
// It has no `UPDATE … RETURNING`.
sql_rows!(
    MySqlPool,
    "INSERT INTO plain VALUES (?, ?, 0)",
    "SELECT data FROM plain WHERE id = ?",
    "UPDATE plain SET data = ?, version = version + 1 WHERE id = ?",
    execute
);
sql_rows!(
    SqlitePool,
    "INSERT INTO plain VALUES (?, ?, 0)",
    "SELECT data FROM plain WHERE id = ?",
    "UPDATE plain SET data = ?, version = version + 1 WHERE id = ? RETURNING version",
    fetch_one
);

pub(crate) async fn postgres(url: &str) -> Router {
    let options = PgPoolOptions::new().test_before_acquire(false);
    let pool = options.connect(url).await.unwrap();
    sqlx::query(TABLE).execute(&pool).await.unwrap();
    routes(pool)
}

pub(crate) async fn mysql(url: &str) -> Router {
    let options = MySqlPoolOptions::new().test_before_acquire(false);
    let pool = options.connect(url).await.unwrap();
    sqlx::query(TABLE).execute(&pool).await.unwrap();
    routes(pool)
}

pub(crate) async fn sqlite(file: &str) -> Router {
    let file = sqlite::SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlite::SqliteSynchronous::Normal);
    // One connection: a second writer would wait by trying.
    let options = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false);
    let pool = options.connect_with(file).await.unwrap();
    sqlx::query(TABLE).execute(&pool).await.unwrap();
    routes(pool)
}
