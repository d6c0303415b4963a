//! The engine's rows, as redb tables.

use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, StorageError, Table as RedbTable,
    TableDefinition, TableError, WriteTransaction,
};

use crate::jetstream::engine::rows::{Order, Read, Rows, RowsMut, Table, Visit};
use crate::jetstream::storage::StoreError;

type Bytes = &'static [u8];

/// In the order of [`Table`]. The names are part of the format.
const DEFINITIONS: [TableDefinition<'static, Bytes, Bytes>; 5] = [
    TableDefinition::new("hot"),
    TableDefinition::new("blocks"),
    TableDefinition::new("deleted"),
    TableDefinition::new("ids"),
    TableDefinition::new("subjects"),
];

/// A failure of redb, as a text for the operator.
pub(super) fn storage_error(error: &StorageError) -> StoreError {
    StoreError { text: format!("store: {error}") }
}

fn table_error(error: &TableError) -> StoreError {
    StoreError { text: format!("store: {error}") }
}

/// Tables of a write transaction.
pub(super) struct WriteRows<'t>([RedbTable<'t, Bytes, Bytes>; 5]);

impl<'t> WriteRows<'t> {
    /// Opens all tables, making those that do not exist.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        let [a, b, c, d, e] = DEFINITIONS.map(|definition| transaction.open_table(definition));
        let tables: Result<_, TableError> = (|| Ok([a?, b?, c?, d?, e?]))();
        tables.map(Self).map_err(|error| table_error(&error))
    }
}

/// Tables of a read transaction.
pub(super) struct ReadRows([ReadOnlyTable<Bytes, Bytes>; 5]);

impl ReadRows {
    /// Opens all tables; [`WriteRows::open`] has made them when the store was opened.
    pub(super) fn open(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        let [a, b, c, d, e] = DEFINITIONS.map(|definition| transaction.open_table(definition));
        let tables: Result<_, TableError> = (|| Ok([a?, b?, c?, d?, e?]))();
        tables.map(Self).map_err(|error| table_error(&error))
    }
}

fn lend(
    table: &impl ReadableTable<Bytes, Bytes>,
    key: &[u8],
    read: &mut Read<'_>,
) -> Result<(), StoreError> {
    if let Some(value) = table.get(key).map_err(|error| storage_error(&error))? {
        read(value.value());
    }
    Ok(())
}

fn scan(
    table: &impl ReadableTable<Bytes, Bytes>,
    from: &[u8],
    to: &[u8],
    order: Order,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    if from >= to {
        return Ok(());
    }
    let mut range = table.range(from..to).map_err(|error| storage_error(&error))?;
    loop {
        let next = match order {
            Order::Up => range.next(),
            Order::Down => range.next_back(),
        };
        let Some(row) = next else { return Ok(()) };
        let (key, value) = row.map_err(|error| storage_error(&error))?;
        if !visit(key.value(), value.value())? {
            return Ok(());
        }
    }
}

impl Rows for WriteRows<'_> {
    fn lend(&self, table: Table, key: &[u8], read: &mut Read<'_>) -> Result<(), StoreError> {
        lend(&self.0[table as usize], key, read)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        scan(&self.0[table as usize], from, to, order, visit)
    }
}

impl Rows for ReadRows {
    fn lend(&self, table: Table, key: &[u8], read: &mut Read<'_>) -> Result<(), StoreError> {
        lend(&self.0[table as usize], key, read)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        scan(&self.0[table as usize], from, to, order, visit)
    }
}

impl RowsMut for WriteRows<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let done = self.0[table as usize].insert(key, value);
        done.map(|_| ()).map_err(|error| storage_error(&error))
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        let done = self.0[table as usize].remove(key);
        done.map(|_| ()).map_err(|error| storage_error(&error))
    }

    fn remove_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let done = self.0[table as usize].retain_in(from..to, |_, _| false);
        done.map_err(|error| storage_error(&error))
    }
}
