package afpacket

import (
	"sync"
	"sync/atomic"

	"github.com/vswitch/vswitch/internal/link"
)

// losses finds out how many frames a direct device lost. One that the kernel may have
// to cut, or forwards itself, goes through the device's queueing discipline, and can be
// lost in silence where the device has no room. The device counts it (tx_dropped),
// together with those that it refused aloud: the difference is what is looked for.
type losses struct {
	before  uint64        // what the device had counted when the port was opened
	silent  atomic.Uint64 // frames sent that it could lose in silence
	refused atomic.Uint64 // how often it refused one aloud

	mu   sync.Mutex
	lost uint64 // as last found out
}

// count adds frames that the device was given: those it took, perhaps not telling that
// it had no room for them, and how often it refused one aloud.
func (l *losses) count(took, refused int, silent bool) {
	if silent && took != 0 {
		l.silent.Add(uint64(took))
	}
	if refused != 0 {
		l.refused.Add(uint64(refused))
	}
}

// Lost implements port.Lossy. It acts on the calling thread's network namespace,
// which must be the one of Open. A device that is gone lost what it had lost when it
// was last asked; one that had to cut a frame counts the pieces, of which no more
// are believed than frames were sent. A device that is not direct has a queue of its
// own, and tells of what that has no room for.
func (p *Port) Lost(others uint64) uint64 {
	if !p.direct {
		return 0
	}
	l := &p.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	silent := l.silent.Load() + others
	if silent == l.lost {
		return l.lost // often 0: nothing went that way
	}
	counted, err := link.TxDropped(p.ifindex)
	if err != nil {
		return l.lost
	}
	// What is being refused now may be counted by the device and not by its
	// sender yet: senders come to their end first.
	p.mu.Lock()
	refused := l.refused.Load()
	p.mu.Unlock()
	if known := l.before + refused; counted > known {
		l.lost = max(l.lost, min(counted-known, silent))
	}
	return l.lost
}
