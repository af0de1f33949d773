// Runs one query in DuckDB, an analytical data base that reads files where they lie.
// Usage: node duckdb.mjs QUERY
// It prints the first column of each row, one a line.

import { DuckDBInstance } from '@duckdb/node-api'

const instance = await DuckDBInstance.create(':memory:')
const connection = await instance.connect()
const rows = await connection.runAndReadAll(process.argv[2])
for (const [value] of rows.getRows()) console.log(String(value))
