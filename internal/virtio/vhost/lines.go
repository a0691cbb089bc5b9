//go:build !amd64 || race

package vhost

import "sync/atomic"

// storeRelease writes a word with release order, which the race detector sees.
func storeRelease(p *uint32, v uint32) { atomic.StoreUint32(p, v) }

// claim gets the first two lines of each buffer, to be written to.
func claim(row []Single) {
	for i := range row {
		b := row[i].Bytes
		b[0], b[min(len(b)-1, cacheLine)] = 0, 0
	}
}
