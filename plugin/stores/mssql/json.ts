/** Lists and rows that are passed to SQL Server as JSON. */
import { getTableName } from 'drizzle-orm'
import type { MsSqlTable } from 'drizzle-orm/mssql-core'
import { type Column, columnsOf, listOf, written } from './rows.js'
import { collation, storedKey } from './schema.js'

/**
 * Selects the members of a list passed as JSON. They are distinct, so that the list is read once and not for each row
 * that it is compared with.
 */
export function listed(name: string): string {
  return `select distinct ${unescaped('[value]')} from openjson(@${name}) with ([value] nvarchar(320) '$')`
}

/** Returns keys as a list to be passed as JSON. */
export function given(keys: readonly string[]): string[] {
  return keys.map((key) => escaped(storedKey(key)))
}

/** The characters that JSON must escape, except NUL, which no text here contains. */
const special = `"\\${String.fromCharCode(...Array.from({ length: 31 }, (_, code) => code + 1))}`

/**
 * The substitute for each of them in transit: code points that Unicode reserves as never being characters of a text.
 */
const standIns = ['\uffff', ...Array.from({ length: 32 }, (_, at) => String.fromCharCode(0xfdd0 + at))]

export const alphabets = { escaped: standIns.join(''), plain: special }

function escaped(text: string): string {
  return text.replace(/["\\\p{Cc}]/gu, (character) => standIns[special.indexOf(character)] ?? character)
}

/**
 * Restores a text that came as JSON. Such a text has the collation of the database, in which the substitutes might
 * all compare as equal, so the collation is set as well.
 */
function unescaped(column: string): string {
  return `translate(${column} collate ${collation}, @escaped, @plain)`
}

/** Rows that are passed as JSON. */
function recordset(table: MsSqlTable, parameter: string): string {
  const columns = Object.values(columnsOf(table)).map(
    (column) => `[${column.name}] ${column.getSQLType().replace(/ COLLATE .*/, '')}`,
  )
  return `openjson(@${parameter}) with (${columns.join(', ')}) as g`
}

/** Every row gets the number of the change that writes it. */
function stamped(column: Column): string {
  if (column.name === 'revision') return '@revision'
  const came = `g.[${column.name}]`
  return column.getSQLType().startsWith('nvarchar') ? unescaped(came) : came
}

export function replaced(table: MsSqlTable, parameter: string): string {
  const columns = Object.values(columnsOf(table)).filter(({ name }) => name !== 'key')
  return `update t set ${columns.map((column) => `[${column.name}] = ${stamped(column)}`).join(', ')}
    from ${getTableName(table)} as t join ${recordset(table, parameter)} on t.[key] = ${unescaped('g.[key]')}
    where t.namespace = @namespace`
}

/**
 * Inserts the rows that do not exist yet. No other change can insert them meanwhile, because the revision row is
 * held.
 */
export function inserted(table: MsSqlTable, parameter: string): string {
  const isNew = `not exists (select 1 from ${getTableName(table)} as t
      where t.namespace = @namespace and t.[key] = ${unescaped('g.[key]')})`
  const values = Object.values(columnsOf(table)).map(stamped)
  return `insert into ${getTableName(table)} (namespace, ${listOf(table)})
    select @namespace, ${values.join(', ')} from ${recordset(table, parameter)}
    ${'key' in columnsOf(table) ? `where ${isNew}` : ''}`
}

/** Returns rows with the names and the stored values of their columns. */
export function storable(table: MsSqlTable, rows: readonly object[]): object[] {
  const columns = Object.entries(columnsOf(table))
  const inJson = (value: string | number | null) => (typeof value === 'string' ? escaped(value) : value)
  return rows.map((row) =>
    Object.fromEntries(
      columns.map(([property, column]) => [column.name, inJson(written(column, Reflect.get(row, property)))]),
    ),
  )
}
