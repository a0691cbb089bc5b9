// Package vhost is the back end's half of vhost-user (QEMU
// docs/interop/vhost-user.rst): the conversation on the socket, the guest's memory, and
// the split and packed virtqueues in it (virtio 1.2, 2.7 and 2.8). It knows no device
// type. One goroutine drives a Backend, many use its Rings. Everything from the peer or
// the guest is treated as hostile.
package vhost

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// Virtqueues of VERSION_1 devices are little-endian, legacy ones use the guest's byte
// order (virtio 1.2, 2.7.2). Both are assumed to match the host: a Backend refuses to
// run on a big-endian one.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// load32 reads an aligned word that the guest may be writing, with acquire order.
func load32(b []byte) uint32 { return atomic.LoadUint32((*uint32)(unsafe.Pointer(&b[:4][0]))) }

// load16 reads half a word that the guest may be writing, with acquire order. It reads
// the whole word, which lies in the same page: sync/atomic has no shorter load.
func load16(b []byte) uint16 {
	p := unsafe.Pointer(&b[:2][0])
	half := uintptr(p) & 2
	return uint16(atomic.LoadUint32((*uint32)(unsafe.Add(p, -int(half)))) >> (8 * half))
}

// store32 writes an aligned word that the guest may be reading, with release order.
func store32(b []byte, v uint32) { storeRelease((*uint32)(unsafe.Pointer(&b[:4][0])), v) }

// needEvent reports whether going from old to now passes the index at which the other
// side wants a notification (virtio 1.2, 2.7.7.2).
func needEvent(event, now, old uint16) bool { return now-event-1 < now-old }
