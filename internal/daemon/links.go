package daemon

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
)

// Links gives access to the network interfaces in the process's namespace.
type Links interface {
	// Watch sends an event when an interface appears, changes or goes, until ctx ends. The
	// manager takes events as hints to look again, so late or merged events do no harm.
	Watch(ctx context.Context) (<-chan link.Event, error)

	// ByIndex and ByName return the current state of an interface, or an error that wraps
	// link.ErrNotFound if there is none.
	ByIndex(index int) (link.Link, error)
	ByName(name string) (link.Link, error)

	// Claim returns a claim on the interfaces for the switch of that name.
	Claim(switchName, socket string) Claim

	// IPv4 returns the host's first address on an interface; it is invalid if there is none.
	IPv4(index int) (netip.Prefix, error)

	// Strays returns the interfaces of the switch of that name in other network namespaces.
	Strays(switchName string) ([]link.Stray, error)

	// Made returns the interfaces that the switch of that name made.
	Made(switchName string) ([]link.Link, error)

	// Carrier reports whether something is at the other end of an interface, and Remove removes one.
	Carrier(index int) (bool, error)
	Remove(link.Link) error
}

// Claim gives one switch of a name the sole use of interfaces. Any goroutine may use it.
type Claim interface {
	// Take takes the claim, or returns an error that names the switch that has it. The claim
	// is held until Close or the end of the process.
	Take() error
	Close() error

	// File returns the claim for another process, which receives it; nil if it is not taken.
	File() (*os.File, error)
	Receive(*os.File) error
}

// HostLinks are the kernel's interfaces.
type HostLinks struct{}

func (HostLinks) Watch(ctx context.Context) (<-chan link.Event, error) { return link.Watch(ctx) }
func (HostLinks) ByIndex(index int) (link.Link, error)                 { return link.ByIndex(index) }
func (HostLinks) ByName(name string) (link.Link, error)                { return link.ByName(name) }
func (HostLinks) Claim(name, socket string) Claim                      { return owner.NewClaim(name, socket) }
func (HostLinks) IPv4(index int) (netip.Prefix, error)                 { return link.IPv4(index) }
func (HostLinks) Strays(switchName string) ([]link.Stray, error)       { return owner.Strays(switchName) }
func (HostLinks) Made(switchName string) ([]link.Link, error)          { return owner.MadeBy(switchName) }
func (HostLinks) Carrier(index int) (bool, error)                      { return link.Carrier(index) }
func (HostLinks) Remove(l link.Link) error                             { return l.Delete() }

// watchOn forwards events until ctx ends. If the watch ends earlier, watchOn logs it, starts
// another, and sends an event with Err set: the receiver's knowledge may be outdated.
func (m *manager) watchOn(ctx context.Context, news <-chan link.Event) <-chan link.Event {
	events := make(chan link.Event)
	go func() {
		// passOn forwards events until their channel closes and returns why it did.
		passOn := func(news <-chan link.Event) (why error) {
			why = errWatchEnded
			for {
				select {
				case ev, ok := <-news:
					switch {
					case !ok:
						return why
					case ev.Err != nil:
						why = ev.Err
						continue
					}
					select {
					case events <- ev:
					case <-ctx.Done():
						return nil
					}
				case <-ctx.Done():
					return nil
				}
			}
		}
		for {
			began := time.Now()
			why := passOn(news)
			for backoff := minBackoff; why != nil; backoff = min(2*backoff, maxBackoff) {
				if time.Since(began) < maxBackoff {
					backoff = maxBackoff // it ended as soon as it began
				}
				m.log.Error("no more news of network interfaces: watching them anew", "error", why, "in", backoff)
				select {
				case <-time.After(backoff):
				case <-ctx.Done():
					return
				}
				if news, why = m.links.Watch(ctx); why != nil {
					continue
				}
				select {
				case events <- link.Event{Err: errWatchEnded}:
				case <-ctx.Done():
					return
				}
			}
			if ctx.Err() != nil {
				return
			}
		}
	}()
	return events
}

var errWatchEnded = errors.New("the watch ended")

// bootID identifies this boot of the host; it is empty if the kernel does not tell.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// linkSpeed returns the link speed that an interface's driver reports, in bit/s, or 0 if it
// reports none. The kernel may be slow to answer.
func linkSpeed(ifname string) uint64 {
	b, err := os.ReadFile(filepath.Join("/sys/class/net", ifname, "speed"))
	if err != nil {
		return 0
	}
	mbit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || mbit <= 0 { // -1: unknown
		return 0
	}
	return uint64(mbit) * 1e6
}
