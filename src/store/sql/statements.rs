//! The statements, and how their parameters and rows are made of records.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::{
    Dialect, SWEEP_BATCH,
    driver::{COLUMNS, Row},
};
use crate::{
    expiry::Timestamp,
    record::{
        Record,
        id::{StoreId, Verifier},
    },
    store::{PAGE, StoreError, values},
};

/// The statements on one table; each is prepared once per connection.
pub(super) struct Statements {
    pub(super) table: Box<str>,
    pub(super) probe: SqlStr,
    pub(super) schema: Vec<SqlStr>,
    pub(super) load: SqlStr,
    pub(super) sessions_of: SqlStr,
    pub(super) ids_of: SqlStr,
    /// Of one record, and of a page of them.
    pub(super) destroy_of: [SqlStr; 2],
    pub(super) is_live: SqlStr,
    pub(super) reserve: Reserve,
    pub(super) create: SqlStr,
    pub(super) destroy: SqlStr,
    pub(super) destroy_over: SqlStr,
    /// By the fields of [`Assigned`].
    apply: [[[SqlStr; 2]; 2]; 3],
    /// Deletes, and postpones.
    pub(super) sweep: [SqlStr; 2],
}

/// Those of one reservation, in their order.
pub(crate) struct Reserve {
    /// Writes a row of the user's own, so that others wait until the transaction is over.
    pub(crate) lock: SqlStr,
    pub(crate) live: SqlStr,
    pub(crate) destroy: SqlStr,
    pub(crate) create: SqlStr,
}

/// What a write does to a record's values.
#[derive(Clone, Copy)]
pub(super) enum Values {
    Stay,
    Merge,
    Replace,
}

/// The columns that a write assigns, besides those that each write assigns. SQLite writes to an index
/// if its column is assigned at all, be it to the same value.
#[derive(Clone, Copy)]
pub(super) struct Assigned {
    pub(super) values: Values,
    pub(super) user: bool,
    /// If the record may expire earlier than before.
    pub(super) sweep_at: bool,
}

impl Statements {
    pub(super) fn new<D: Dialect>(table: &str) -> Self {
        let sql = |text: String| AssertSqlSafe(D::placeholders(text)).into_sql_str();
        let select = format!("SELECT {COLUMNS}, {} FROM {table}", D::DATA_TEXT);
        let of_user = format!("user_hash = ? AND id > ? ORDER BY id LIMIT {PAGE}");
        let update = |assigned: Assigned| {
            let data = match assigned.values {
                Values::Stay => String::new(),
                Values::Merge => format!("data = {}, version = version + 1, ", D::MERGED),
                Values::Replace => format!("data = {}, version = version + 1, ", D::OBJECT),
            };
            let user = match assigned.user {
                true => "user_id = ?, user_hash = ?, ",
                false => "",
            };
            let sweep_at = match assigned.sweep_at {
                true => format!("sweep_at = {}(sweep_at, ?), ", D::LEAST),
                false => String::new(),
            };
            sql(format!(
                "UPDATE {table} SET {data}{user}{sweep_at}last_seen = ?, expires = ?, \
                 verifier = COALESCE(?, verifier), created = COALESCE(?, created) \
                 WHERE id = ? AND verifier = ? AND expires > ? AND version = COALESCE(?, version)"
            ))
        };
        let create = format!(
            "INSERT INTO {table} \
             (id, verifier, created, data, last_seen, expires, sweep_at, user_id, user_hash, \
             version) VALUES (?, ?, ?, {}, ?, ?, ?, ?, ?, 1)",
            D::OBJECT
        );
        Self {
            table: table.into(),
            probe: sql(format!(
                "{select} WHERE user_hash IS NULL AND sweep_at IS NULL AND 1 = 0"
            )),
            schema: D::schema(table).into_iter().map(sql).collect(),
            load: sql(format!("{select} WHERE id = ? AND expires > ?")),
            sessions_of: sql(format!(
                "SELECT {COLUMNS}, COALESCE({}, '') FROM {table} WHERE {of_user}",
                D::NOTE
            )),
            // All columns that a page of ids needs are in the index.
            ids_of: sql(format!("SELECT id FROM {table} WHERE {of_user}")),
            destroy_of: [1, PAGE].map(|ids| {
                let ids = ", ?".repeat(ids - 1);
                sql(D::destroy(
                    table,
                    &format!("user_hash = ? AND id IN (?{ids})"),
                ))
            }),
            // All but the values, which are not read.
            is_live: sql(format!(
                "SELECT {COLUMNS}, '{{}}' FROM {table} WHERE id = ? AND expires > ?"
            )),
            reserve: Reserve {
                lock: sql(format!("{create} {} expires = ?", D::OR_UPDATE)),
                live: sql(format!(
                    "SELECT id FROM {table} WHERE user_hash = ? AND expires > ? LIMIT ?"
                )),
                destroy: sql(format!("DELETE FROM {table} WHERE id = ?")),
                create: sql(create.clone()),
            },
            create: sql(create),
            destroy: sql(D::destroy(table, "id = ?")),
            destroy_over: sql(format!("DELETE FROM {table} WHERE id = ? AND expires <= ?")),
            apply: [Values::Stay, Values::Merge, Values::Replace].map(|values| {
                [false, true].map(|user| {
                    [false, true].map(|sweep_at| {
                        update(Assigned {
                            values,
                            user,
                            sweep_at,
                        })
                    })
                })
            }),
            sweep: D::sweep(table, SWEEP_BATCH).map(sql),
        }
    }

    pub(super) fn apply(&self, assigned: Assigned) -> &SqlStr {
        let of_values = &self.apply[assigned.values as usize];
        &of_values[usize::from(assigned.user)][usize::from(assigned.sweep_at)]
    }
}

/// Converts a number to a column's type. What is too large for one (a timeout that never ends) is
/// as large as can be.
pub(super) fn column(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

pub(super) fn stored_id<D: Dialect>(id: Vec<u8>) -> Result<StoreId, StoreError> {
    let id = id.try_into().map_err(|_| StoreError::Corrupt {
        store: D::NAME,
        why: "an id has no 32 bytes",
    })?;
    Ok(StoreId::from_bytes(id))
}

pub(super) fn record<D: Dialect>(row: Row) -> Result<(StoreId, Record), StoreError> {
    let corrupt = |why| StoreError::Corrupt {
        store: D::NAME,
        why,
    };
    let number = |column: i64| {
        column
            .try_into()
            .map_err(|_| corrupt("a number is negative"))
    };
    let id = stored_id::<D>(row.id)?;
    let verifier = row
        .verifier
        .try_into()
        .map_err(|_| corrupt("a verifier has no 32 bytes"))?;
    let user = row.user.map(String::from_utf8).transpose();
    let user = user.map_err(|_| corrupt("a user's id is no text"))?;
    let entries = values::entries(&row.data).map_err(|_| corrupt("the values are none"))?;
    let time = |column| number(column).map(Timestamp::from_millis);
    let mut record = Record::new(time(row.created)?, time(row.expires)?, entries);
    record.last_seen = time(row.last_seen)?;
    record.verifier = Verifier::from_bytes(verifier);
    record.version = number(row.version)?;
    record.user = user.map(Arc::from);
    Ok((id, record))
}
