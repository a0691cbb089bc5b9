//go:build !race

package vhost

// storeRelease writes a word with release order. sync/atomic has only a store that also waits until
// all stores before it are visible; so long, the processor can do nothing else.
//
//go:noescape
func storeRelease(p *uint32, v uint32)

// claim begins to get the first two lines of each buffer, to be written to, and does not wait.
//
//go:noescape
func claim(row []Single)
