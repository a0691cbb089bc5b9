package vxlan

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// refusal records frames that were refused, to tell the user whose they were.
type refusal struct {
	mu    sync.Mutex
	from  netip.Addr
	at    time.Time
	told  time.Time // of the last line in the log
	count uint64
}

const (
	// A notice covers the last minute; the log gets one at most every ten seconds.
	noticeFor   = time.Minute
	noticeEvery = 10 * time.Second
)

// refused records n frames of a host that is no VTEP of the tunnel.
func (t *tunnel) refused(from netip.Addr, n int) {
	now := time.Now()
	r := &t.refusal
	r.mu.Lock()
	defer r.mu.Unlock()
	r.from, r.at = from, now
	r.count += uint64(n)
	if now.Sub(r.told) >= noticeEvery {
		r.told = now
		signal(t.news)
	}
}

// Notice implements port.Noticer.
func (t *tunnel) Notice() string {
	r := &t.refusal
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case t.homeless.Load():
		return fmt.Sprintf("address %s is no longer on this host; give it back, or add the port again with another one", t.local)
	case r.count > 0 && time.Since(r.at) < noticeFor && !t.known(r.from):
		return fmt.Sprintf("frames from %s are refused: it is no peer (%d frames); name it with --peers if it should be one", r.from, r.count)
	case len(*t.byAddr.Load()) == 0 && t.driven():
		return "EVPN knows no other host yet; see `vswitch evpn neighbors`"
	case len(*t.byAddr.Load()) == 0:
		return "no other host is known; name some with --peers"
	}
	return ""
}

// known reports whether a host is by now a member of all networks, as a peer is.
func (t *tunnel) known(a netip.Addr) bool {
	v := (*t.byAddr.Load())[a]
	if v == nil {
		return false
	}
	for _, n := range t.networks.Load().byVNI {
		if !n.has(v) {
			return false
		}
	}
	return true
}

// Link implements port.Linked: a tunnel has no carrier of its own.
func (t *tunnel) Link() bool { return true }

// LinkError implements port.Linked.
func (t *tunnel) LinkError() error { return nil }

// LinkChanged implements port.Linked.
func (t *tunnel) LinkChanged() <-chan struct{} { return t.news }
