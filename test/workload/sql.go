package workload

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// accounts is the number of rows that transactions and lookups choose from; with their
// filler they take some 8 MiB.
const accounts = 20000

var schemaSQL = fmt.Sprintf(`CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, filler TEXT NOT NULL);
CREATE TABLE history (account INTEGER NOT NULL, delta INTEGER NOT NULL, at INTEGER NOT NULL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d)
INSERT INTO accounts SELECT i, 0, hex(zeroblob(200)) FROM n;
`, accounts)

// transactionsSQL is what pgbench does, in small: each transaction is made durable.
func transactionsSQL(n int) string {
	random := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	b.WriteString("PRAGMA synchronous=FULL;\n")
	for i := range n {
		account, delta := 1+random.IntN(accounts), random.IntN(10000)-5000
		fmt.Fprintf(&b, "BEGIN; UPDATE accounts SET balance = balance + %d WHERE id = %d; SELECT balance FROM accounts WHERE id = %d; INSERT INTO history VALUES (%d, %d, %d); COMMIT;\n",
			delta, account, account, account, delta, i)
	}
	return b.String()
}

// lookupsSQL reads single rows, with no cache of SQLite's own.
func lookupsSQL(n int) string {
	random := rand.New(rand.NewPCG(5, 6))
	var b strings.Builder
	b.WriteString("PRAGMA cache_size=10;\n")
	for range n {
		fmt.Fprintf(&b, "SELECT balance FROM accounts WHERE id = %d;\n", 1+random.IntN(accounts))
	}
	return b.String()
}
