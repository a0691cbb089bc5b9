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

const (
	// policeBurst is how long a policed port that was silent may send at any speed.
	// TCP waits 200 ms at least before it sends again what was lost last (RFC 6298's
	// timer as Linux sets it). What it may not catch up then is lost to its rate: with
	// 50 ms it gets a quarter of that, with 200 ms 80 %, with 400 ms 95 %.
	policeBurst = 400 * time.Millisecond

	// stormBurst is that of storm control: a rate of 100 a second means a hundred, also
	// where they come at once, as from a machine that boots.
	stormBurst = time.Second

	// superBytes and superFrames are on the wire what the longest super-frame becomes,
	// cut to the MTU of 1500.
	superBytes  = 68 << 10
	superFrames = 46
)

// bucket limits a rate by the generic cell rate algorithm (ITU-T I.371): one word,
// the time until which what was let through has used up the rate. Any worker may
// call allow. Its limit never changes: a port with a new rate has a new bucket, so
// what passed under the old one does not count against the new. A nil bucket has no
// limit.
type bucket struct {
	rate  port.Rate
	burst int64        // ns
	until atomic.Int64 // ns
}

// limit returns a bucket for a rate: b, with what it knows, where that is its rate.
func (b *bucket) limit(r port.Rate, burst time.Duration) *bucket {
	switch {
	case r.PerSecond == 0:
		return nil
	case b != nil && b.rate == r:
		return b
	}
	return &bucket{rate: r, burst: int64(burst)}
}

// police is limit for all frames of a port: the burst has room for a super-frame.
func (b *bucket) police(r port.Rate) *bucket {
	return b.limit(r, max(policeBurst, time.Duration(superCost(r))))
}

// cost returns the time f uses at a rate, in ns. The longest super-frame of the
// smallest segments uses less than 2^55 ns of the lowest rate.
func cost(f *port.Frame, r port.Rate) int64 {
	frames, bytes := wireSize(f)
	if r.Bits {
		return timeOf(8*bytes, r)
	}
	return timeOf(frames, r)
}

// superCost is the cost of the longest super-frame.
func superCost(r port.Rate) int64 {
	if r.Bits {
		return timeOf(8*superBytes, r)
	}
	return timeOf(superFrames, r)
}

func timeOf(units uint64, r port.Rate) int64 {
	return int64(float64(units) * 1e9 / float64(r.PerSecond))
}

// allow reports whether f is within the rate at a time, and counts it if so. A frame
// that begins within the burst passes whole, so none is too long ever to pass, and
// short ones have no better chance than long ones.
func (b *bucket) allow(f *port.Frame, now int64) bool {
	if b == nil {
		return true
	}
	for {
		until := b.until.Load()
		from := max(until, now)
		if from-now >= b.burst {
			return false
		}
		if b.until.CompareAndSwap(until, from+cost(f, b.rate)) {
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
		header = uint64(o.CsumStart) + transportHeader(f)
	}
	if header >= length {
		return 1, length
	}
	frames = (length - header + uint64(o.GSOSize) - 1) / uint64(o.GSOSize)
	return frames, length + (frames-1)*header
}

// transportHeader returns how much each segment of a super-frame repeats from the
// checksum's start on.
func transportHeader(f *port.Frame) uint64 {
	switch f.Offload.GSOType & 7 { // the upper bits say more of the same kinds
	case port.GSOUDPL4:
		return 8
	case port.GSOSCTP:
		return 12
	case port.GSOUDP: // fragments, of which the first has UDP's header
		return 0
	}
	if at := int(f.Offload.CsumStart) + 12; at < len(f.Data) {
		return uint64(f.Data[at]>>4) * 4 // TCP's data offset
	}
	return 20
}

// storm returns why a frame of one class is beyond the port's rate for it, or DropNone.
func (w *worker) storm(f *port.Frame, from *member, class Class) port.Drop {
	drop := from.storm.allow(f, class, w.now())
	if drop != port.DropNone && from.flags&flagStormShutdown != 0 {
		w.sw.events.guard(StormHit{Port: from.number, Why: drop})
	}
	return drop
}

// storm limits each class of flooded frames.
type storm struct{ broadcast, multicast, unicast *bucket }

func (s *storm) limit(r StormRates) storm {
	return storm{
		broadcast: s.broadcast.limit(r.Broadcast, stormBurst),
		multicast: s.multicast.limit(r.Multicast, stormBurst),
		unicast:   s.unicast.limit(r.UnknownUnicast, stormBurst),
	}
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
