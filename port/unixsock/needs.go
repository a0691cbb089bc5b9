package unixsock

import (
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/vswitch/vswitch/port"
)

// Needs implements port.Sized: two threads wait for a connected peer, one to receive,
// one for room to send. A peer that is behind fills the socket and the backlog, and can leave a part
// of a frame.
func (Stream) Needs(port.Spec, int) port.Needs {
	return port.Needs{Threads: 2, Files: 4, Memory: inSocket(sendBuffer) + backlogLen + bufLen}
}

// Needs implements port.Sized: Go's poller waits for the peer.
func (Dgram) Needs(port.Spec, int) port.Needs {
	return port.Needs{Files: 3, Memory: min(inSocket(dgramBuffer), atPeer()) + backlogLen}
}

// inSocket returns what the kernel keeps for a socket's peer, at most, if it is asked for a buffer of
// that many bytes. It doubles the number, for what frames take beside their bytes (socket(7)), and lets
// one frame go beyond.
func inSocket(buffer int) int {
	return 2*min(buffer, number(&wmemMax, buffer)) + port.MaxFrame
}

// atPeer returns what the kernel keeps of datagrams for one socket, at most (net.unix.max_dgram_qlen in unix(7)).
func atPeer() int {
	const beside = 4096 // a frame's own, beside its bytes
	return (number(&queueLen, 512) + 2) * (port.MaxFrame + beside)
}

var wmemMax, queueLen = sysctl{path: "net/core/wmem_max"}, sysctl{path: "net/unix/max_dgram_qlen"}

// sysctl is a number of the system's settings, read once.
type sysctl struct {
	path string
	once sync.Once
	n    int // 0: it cannot be read
}

func number(s *sysctl, otherwise int) int {
	s.once.Do(func() {
		b, _ := os.ReadFile("/proc/sys/" + s.path)
		s.n, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	})
	if s.n <= 0 {
		return otherwise
	}
	return s.n
}
