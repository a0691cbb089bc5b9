// Package upgradetest counts the frames that a switch loses while its process is replaced, killed
// or stopped, for each kind of port. It has tests and benchmarks only:
//
//	go test ./internal/test/upgradetest -run '^$' -bench . -benchtime 1x -rate 10000
//
// prints the figures of docs/upgrade.md.
package upgradetest
