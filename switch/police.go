package vswitch

import (
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/port"
)

// now returns the batch's time in nanoseconds: since the switch was made, or by the clock
// of the fast path. It reads the clock once per batch, and only for ports that need it.
func (w *worker) now() int64 {
	switch {
	case w.clock != 0:
	case w.sw.fast != nil:
		w.clock = w.sw.fast.Now()
	default:
		w.clock = int64(time.Since(w.sw.start)) + 1
	}
	return w.clock
}

const (
	// policeBurst is how long a policed port may send at any speed after silence. TCP waits
	// at least 200 ms before it resends the last lost segment (RFC 6298's timer as Linux
	// sets it), and loses the rate that the burst does not let it catch up: with 50 ms it
	// gets a quarter of its rate, with 200 ms 80 %, with 400 ms 95 %.
	policeBurst = 400 * time.Millisecond

	// stormBurst is the burst of storm control: a rate of 100 a second admits a hundred
	// frames even at once, as from a machine that boots.
	stormBurst = time.Second

	// policeLate is how much lost time a port makes up for that has sent more than its rate and goes on,
	// beside that of a frame: its frames come in batches, and late on a busy machine. A burst may be
	// shorter than the time between two batches, which would then be lost.
	policeLate = shapeLate

	// superBytes and superFrames are the size on the wire of the longest super-frame,
	// segmented for an MTU of 1500.
	superBytes  = 68 << 10
	superFrames = 46

	fullBytes = 1514
)

// bucket enforces a rate by the generic cell rate algorithm (ITU-T I.371). Its state is
// one word: the time until which the admitted frames use up the rate. Any worker may call
// allow. The limit never changes: a port with a new rate gets a new bucket, so earlier
// frames do not count against the new rate. A nil bucket has no limit.
type bucket struct {
	rate  port.Rate
	burst int64         // ns
	late  int64         // ns: policeLate, and the time of a full-size frame
	until *atomic.Int64 // ns; a fast path may charge it, too
	over  atomic.Bool   // a frame was refused, and since then the rate was never unused for late
	turn  uint8         // which of its budgets of the port that is
}

// limit returns a bucket for a rate: b with its state if b has that rate already.
func (b *bucket) limit(r port.Rate, burst time.Duration) *bucket {
	switch {
	case r.PerSecond == 0:
		return nil
	case b != nil && b.rate == r && b.burst == int64(burst):
		return b
	}
	return &bucket{rate: r, burst: int64(burst), late: int64(policeLate) + fullCost(r), until: new(atomic.Int64)}
}

// setPolice sets the rate of all frames that come by the port. Without a burst, it has
// room for a super-frame. The caller holds sw.mu.
func (p *Port) setPolice(r port.Rate, burst time.Duration) {
	if burst == 0 {
		burst = max(policeBurst, time.Duration(superCost(r)))
	}
	b := p.police.limit(r, burst)
	if b != p.police && b != nil && p.sw.fast != nil {
		p.turn ^= 1
		b.turn, b.until = p.turn, p.sw.fast.Budget(p.number, p.turn)
		b.until.Store(0)
	}
	p.police = b
}

// cost returns the time f uses at a rate, in ns. It is less than 2^55 even for the longest
// super-frame in the smallest segments at the lowest rate.
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

// fullCost is the cost of a frame of the size that every Ethernet takes.
func fullCost(r port.Rate) int64 {
	if r.Bits {
		return timeOf(8*fullBytes, r)
	}
	return timeOf(1, r)
}

func timeOf(units uint64, r port.Rate) int64 {
	return int64(float64(units) * 1e9 / float64(r.PerSecond))
}

// allow reports whether f is within the rate, and counts it if so. A frame that begins
// within the burst passes whole, so no frame is too long to ever pass, and short frames
// have no better chance than long ones. See admit in fastpath.c.
func (b *bucket) allow(f *port.Frame, now int64) bool {
	if b == nil {
		return true
	}
	for {
		until := b.until.Load()
		if until-now >= b.burst {
			if !b.over.Load() {
				b.over.Store(true)
			}
			return false
		}
		from, takes, over := until, cost(f, b.rate), b.over.Load()
		if until < now && (!over || now-until > b.late+takes) {
			from = now
		}
		if !b.until.CompareAndSwap(until, from+takes) {
			continue
		}
		if over && from != until {
			b.over.Store(false)
		}
		return true
	}
}

// wireSize returns the number of frames and bytes that f becomes on the wire: a
// super-frame counts as its segments.
func wireSize(f *port.Frame) (frames, bytes uint64) {
	length := uint64(f.Len())
	o := &f.Offload
	if !o.IsGSO() || o.GSOSize == 0 {
		return 1, length
	}
	// Each segment repeats the headers. The sender's hdr_len is only a hint; without
	// a checksum start, assume the shortest headers.
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

// transportHeader returns how many bytes from the checksum's start on each segment of a
// super-frame repeats.
func transportHeader(f *port.Frame) uint64 {
	switch f.Offload.GSOType & 7 { // the upper bits only qualify the type
	case port.GSOUDPL4:
		return 8
	case port.GSOSCTP:
		return 12
	case port.GSOUDP: // fragments: only the first has a UDP header
		return 0
	}
	if at := int(f.Offload.CsumStart) + 12; at < len(f.Data) {
		return uint64(f.Data[at]>>4) * 4 // TCP's data offset
	}
	return 20
}

// storm returns the drop reason for a frame beyond the port's storm rate for its class, or
// DropNone.
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

// limited returns the classes that have a limit.
func (s *storm) limited() (c Class) {
	for class, b := range map[Class]*bucket{Broadcast: s.broadcast, Multicast: s.multicast, UnknownUnicast: s.unicast} {
		if b != nil {
			c |= class
		}
	}
	return c
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
