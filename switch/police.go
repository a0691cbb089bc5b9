package vswitch

import (
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/port"
)

// now is the time of the batch in nanoseconds since the switch was made. It is
// read once per batch, and only for ports that need it.
func (w *worker) now() int64 {
	if w.clock == 0 {
		w.clock = int64(time.Since(w.sw.start)) + 1
	}
	return w.clock
}

// burst is how long a limited port that was silent may send at any speed: long
// enough that the bursts of TCP and of batching do not count as excess.
const burst = 50 * time.Millisecond

// bucket limits a rate by the generic cell rate algorithm (ITU-T I.371): one word,
// the time until which what was let through has used up the rate. Any worker may
// call allow; a change of the limit lets at most one burst too many through.
type bucket struct {
	perUnit atomic.Uint64 // picoseconds that a frame or a bit takes; 0: no limit
	bits    atomic.Bool
	until   atomic.Int64 // ns
}

func (b *bucket) set(r port.Rate) {
	var per uint64
	if r.PerSecond != 0 {
		per = max(1, 1e12/r.PerSecond)
	}
	b.bits.Store(r.Bits)
	b.perUnit.Store(per)
}

// cost is how long f takes of the rate, in ns.
func (b *bucket) cost(f *port.Frame) int64 {
	frames, bytes := wireSize(f)
	units := frames
	if b.bits.Load() {
		units = 8 * bytes
	}
	return int64(units * b.perUnit.Load() / 1000)
}

// allow tells whether f is within the rate at a time, and counts it if so.
func (b *bucket) allow(f *port.Frame, now int64) bool {
	if b.perUnit.Load() == 0 {
		return true
	}
	cost := b.cost(f)
	for {
		until := b.until.Load()
		from := max(until, now)
		// One frame is always let through to an idle port, however long it takes.
		if from > now && from+cost > now+int64(burst) {
			return false
		}
		if b.until.CompareAndSwap(until, from+cost) {
			return true
		}
	}
}

// wireSize is how many frames f is on the wire, and how many bytes they have: a
// super-frame counts as the segments that it will be cut into.
func wireSize(f *port.Frame) (frames, bytes uint64) {
	length := uint64(f.Len())
	o := &f.Offload
	if !o.IsGSO() || o.GSOSize == 0 {
		return 1, length
	}
	// What each segment repeats: all up to the payload. The sender's hdr_len is
	// a hint; without a checksum start the shortest headers are assumed.
	header := uint64(port.HeaderLen + 20 + 20)
	if o.Flags&port.NeedsCsum != 0 {
		header = uint64(o.CsumStart) + 20
		if o.GSOType&^port.GSOECN == port.GSOUDPL4 {
			header = uint64(o.CsumStart) + 8
		}
	}
	if header >= length {
		return 1, length
	}
	frames = (length - header + uint64(o.GSOSize) - 1) / uint64(o.GSOSize)
	return frames, length + (frames-1)*header
}

// storm tells why a frame of one class is beyond the port's rate for it, or DropNone.
func (w *worker) storm(f *port.Frame, from *member, class Class) port.Drop {
	drop := from.storm.allow(f, class, w.now())
	if drop != port.DropNone && from.flags&flagStormShutdown != 0 {
		w.sw.events.guard(StormHit{Port: from.number, Why: drop})
	}
	return drop
}

// storm limits each class of flooded frames.
type storm struct{ broadcast, multicast, unicast bucket }

func (s *storm) set(r StormRates) {
	s.broadcast.set(r.Broadcast)
	s.multicast.set(r.Multicast)
	s.unicast.set(r.UnknownUnicast)
}

func (s *storm) allow(f *port.Frame, class Class, now int64) port.Drop {
	switch {
	case class == Broadcast && !s.broadcast.allow(f, now):
		return port.DropStormBroadcast
	case class == Multicast && !s.multicast.allow(f, now):
		return port.DropStormMulticast
	case class == UnknownUnicast && !s.unicast.allow(f, now):
		return port.DropStormUnicast
	}
	return port.DropNone
}
