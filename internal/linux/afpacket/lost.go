package afpacket

import (
	"sync"
	"sync/atomic"

	"github.com/vswitch/vswitch/internal/linux/link"
)

// losses determines how many frames a direct device lost. A frame that the kernel may have
// to segment, or forwards itself, goes through the device's queueing discipline and is lost
// silently if the device has no room. The device counts it (tx_dropped) together with the
// frames that it refused with an error; the difference is the number of lost frames.
type losses struct {
	before  uint64        // the device's count when the port was opened
	silent  atomic.Uint64 // frames sent that it could lose silently
	refused atomic.Uint64 // how often it refused a frame with an error

	mu   sync.Mutex
	lost uint64 // the last result
}

// count adds frames sent to the device: took frames that it accepted, some of which it may
// have lost if silent is set, and refused times that it refused one with an error.
func (l *losses) count(took, refused int, silent bool) {
	if silent && took != 0 {
		l.silent.Add(uint64(took))
	}
	if refused != 0 {
		l.refused.Add(uint64(refused))
	}
}

// Lost implements port.Lossy. It acts on the calling thread's network namespace, which
// must be that of Open. If the device is gone, the last value stands. The device counts
// segments singly, so the result is capped at the number of frames sent. A device that is
// not direct has a queue of its own and returns an error if that queue is full.
func (p *Port) Lost(others uint64) uint64 {
	if !p.direct {
		return 0
	}
	l := &p.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	silent := l.silent.Load() + others
	if silent == l.lost {
		return l.lost // usually 0: no frame went that way
	}
	counted, err := link.TxDropped(p.ifindex)
	if err != nil {
		return l.lost
	}
	// The device may have counted a refusal that its sender has not counted yet, so
	// wait for the senders to finish.
	p.mu.Lock()
	refused := l.refused.Load()
	p.mu.Unlock()
	if known := l.before + refused; counted > known {
		l.lost = max(l.lost, min(counted-known, silent))
	}
	return l.lost
}
