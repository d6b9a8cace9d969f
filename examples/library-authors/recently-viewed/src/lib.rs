//! An example of a library crate without a web framework: it accepts any `HasSession`, stores one
//! value under a typed key, and has tests without a server.

use session_manager::{Error, HasSession, TypedKey};

/// The maximum number of items, because the session may have to fit in a cookie.
const MOST: usize = 5;

const ITEMS: TypedKey<Vec<u32>> = TypedKey::new("recently-viewed.items");

/// Records that the visitor viewed `item`.
pub fn note(req: &(impl HasSession + ?Sized), item: u32) -> Result<(), Error> {
    ITEMS.update(req, move |items| {
        let mut items = items.unwrap_or_default();
        items.retain(|other| *other != item);
        items.insert(0, item);
        items.truncate(MOST);
        items
    })?;
    Ok(())
}

/// Returns the items that the visitor viewed, latest first.
pub fn items(req: &(impl HasSession + ?Sized)) -> Result<Vec<u32>, Error> {
    Ok(ITEMS.load(req)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use session_manager::testing;

    #[test]
    fn an_item_is_listed_once_the_latest_first_and_old_ones_make_room() {
        let session = testing::session();
        for item in [1, 2, 3, 4, 5, 6, 4] {
            note(&session, item).unwrap();
        }
        assert_eq!(items(&session).unwrap(), [4, 6, 5, 3, 2]);
    }

    #[test]
    fn another_crates_keys_are_left_alone() {
        let session = testing::session();
        session.add("items", "theirs").unwrap();
        note(&session, 1).unwrap();
        assert_eq!(session.keys(), ["items", "recently-viewed.items"]);
        assert_eq!(session.get("items").as_deref(), Some("theirs"));
    }
}
