//! Where rows are kept: a few ordered tables of byte keys and byte values.
//!
//! Owns the traits the engine is written against, and their form in memory. Does not own
//! redb: `store` implements the same traits on its transactions.
//!
//! # Invariants
//! - Keys sort as byte strings.
//! - What was put is seen by the next `get` or `scan` of the same [`RowsMut`].

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use crate::jetstream::storage::StoreError;

/// A table. The order is that of redb's tables in `docs/storage-format.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// What nearly every commit touches: heads, tails, settings, consumers.
    Hot = 0,
    /// Closed blocks.
    Blocks = 1,
    /// Deleted sequences inside blocks.
    Deleted = 2,
    /// `Nats-Msg-Id`s within the duplicate window.
    Ids = 3,
    /// The subject index.
    Subjects = 4,
}

impl Table {
    /// All of them.
    pub const ALL: [Table; 5] =
        [Table::Hot, Table::Blocks, Table::Deleted, Table::Ids, Table::Subjects];
}

/// Which end a scan starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Lowest key first.
    Up,
    /// Highest key first.
    Down,
}

/// Called for each row of a scan; false ends it.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'v;

/// Tables that can be read.
pub trait Rows {
    /// Lends the value of one row.
    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, StoreError>;

    /// Visits the rows with `from <= key < to`.
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;
}

/// Tables that can be written.
pub trait RowsMut: Rows {
    /// Writes one row, new or not.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Removes one row, if it is there.
    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError>;

    /// Removes the rows with `from <= key < to`.
    fn remove_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError>;
}

/// Tables of whatever kind, to be read: the engine is compiled once for all of them.
pub(super) struct AnyRows<'r>(&'r dyn Lend);

/// The same, to be written.
pub(super) struct AnyRowsMut<'r>(&'r mut dyn LendMut);

impl<'r> AnyRows<'r> {
    pub(super) fn new(rows: &'r impl Rows) -> Self {
        Self(rows)
    }
}

impl<'r> AnyRowsMut<'r> {
    pub(super) fn new(rows: &'r mut impl RowsMut) -> Self {
        Self(rows)
    }
}

/// [`Rows`] as a trait of objects.
trait Lend {
    fn lend(&self, table: Table, key: &[u8], read: &mut dyn FnMut(&[u8]))
    -> Result<(), StoreError>;

    fn visit(
        &self,
        table: Table,
        range: (&[u8], &[u8]),
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;
}

/// [`RowsMut`] as a trait of objects.
trait LendMut: Lend {
    fn set(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError>;
    fn unset(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError>;
    fn unset_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError>;
}

impl<T: Rows> Lend for T {
    fn lend(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<(), StoreError> {
        self.get(table, key, read).map(|_| ())
    }

    fn visit(
        &self,
        table: Table,
        range: (&[u8], &[u8]),
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.scan(table, range.0, range.1, order, visit)
    }
}

impl<T: RowsMut> LendMut for T {
    fn set(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.put(table, key, value)
    }

    fn unset(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.remove(table, key)
    }

    fn unset_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.remove_range(table, from, to)
    }
}

/// What [`Rows::get`] promises, by [`Lend::lend`].
fn get<R, L: Lend + ?Sized>(
    rows: &L,
    table: Table,
    key: &[u8],
    read: impl FnOnce(&[u8]) -> R,
) -> Result<Option<R>, StoreError> {
    let (mut read, mut result) = (Some(read), None);
    rows.lend(table, key, &mut |value| {
        if let Some(read) = read.take() {
            result = Some(read(value));
        }
    })?;
    Ok(result)
}

impl Rows for AnyRows<'_> {
    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, StoreError> {
        get(self.0, table, key, read)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.0.visit(table, (from, to), order, visit)
    }
}

impl Rows for AnyRowsMut<'_> {
    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, StoreError> {
        get(&*self.0, table, key, read)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.0.visit(table, (from, to), order, visit)
    }
}

impl RowsMut for AnyRowsMut<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.set(table, key, value)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.0.unset(table, key)
    }

    fn remove_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.0.unset_range(table, from, to)
    }
}

/// Rows in memory: for memory streams and for tests.
#[derive(Clone, Debug, Default)]
pub struct MemRows([BTreeMap<Box<[u8]>, Vec<u8>>; 5]);

impl MemRows {
    fn table(&self, table: Table) -> &BTreeMap<Box<[u8]>, Vec<u8>> {
        &self.0[table as usize]
    }

    /// Number of rows, for tests that look for leftovers.
    pub fn len(&self, table: Table) -> usize {
        self.table(table).len()
    }
}

impl Rows for MemRows {
    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, StoreError> {
        Ok(self.table(table).get(key).map(|value| read(value)))
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let range =
            self.table(table).range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        match order {
            Order::Up => {
                for (key, value) in range {
                    if !visit(key, value)? {
                        break;
                    }
                }
            }
            Order::Down => {
                for (key, value) in range.rev() {
                    if !visit(key, value)? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

impl RowsMut for MemRows {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let rows = &mut self.0[table as usize];
        if let Some(old) = rows.get_mut(key) {
            old.clear();
            old.extend_from_slice(value);
        } else {
            rows.insert(key.into(), value.to_vec());
        }
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.0[table as usize].remove(key);
        Ok(())
    }

    fn remove_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let rows = &mut self.0[table as usize];
        let mut tail = rows.split_off(from);
        let mut rest = tail.split_off(to);
        rows.append(&mut rest);
        Ok(())
    }
}
