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

/// Called with the value of a row.
pub type Read<'r> = dyn FnMut(&[u8]) + 'r;

/// Tables that can be read.
pub trait Rows {
    /// Lends the value of one row to `read`, once, if it is there.
    fn lend(&self, table: Table, key: &[u8], read: &mut Read<'_>) -> Result<(), StoreError>;

    /// What `read` makes of the value of one row.
    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, StoreError>
    where
        Self: Sized,
    {
        let (mut read, mut result) = (Some(read), None);
        self.lend(table, key, &mut |value| result = read.take().map(|read| read(value)))?;
        Ok(result)
    }

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
pub(super) type AnyRows<'r> = &'r dyn Rows;

/// The same, to be written.
pub(super) type AnyRowsMut<'r> = &'r mut dyn RowsMut;

impl Rows for AnyRows<'_> {
    fn lend(&self, table: Table, key: &[u8], read: &mut Read<'_>) -> Result<(), StoreError> {
        (**self).lend(table, key, read)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        (**self).scan(table, from, to, order, visit)
    }
}

impl Rows for AnyRowsMut<'_> {
    fn lend(&self, table: Table, key: &[u8], read: &mut Read<'_>) -> Result<(), StoreError> {
        (**self).lend(table, key, read)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        (**self).scan(table, from, to, order, visit)
    }
}

impl RowsMut for AnyRowsMut<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        (**self).put(table, key, value)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        (**self).remove(table, key)
    }

    fn remove_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        (**self).remove_range(table, from, to)
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
    fn lend(&self, table: Table, key: &[u8], read: &mut Read<'_>) -> Result<(), StoreError> {
        if let Some(value) = self.table(table).get(key) {
            read(value);
        }
        Ok(())
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
