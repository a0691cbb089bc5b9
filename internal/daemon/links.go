package daemon

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vswitch/vswitch/internal/link"
	"github.com/vswitch/vswitch/internal/owner"
)

// Links tells of the network interfaces in the namespace of the process.
type Links interface {
	// Watch sends an event when an interface appeared, changed or went, until
	// ctx ends. The manager takes events as hints to look again, so one that
	// is late or stands for several does no harm.
	Watch(ctx context.Context) (<-chan link.Event, error)

	// ByIndex and ByName return an interface as it is now, an error that wraps
	// link.ErrNotFound where there is none.
	ByIndex(index int) (link.Link, error)
	ByName(name string) (link.Link, error)

	// Claim returns a claim on the interfaces for the switch of that name.
	Claim(switchName, socket string) Claim

	// IPv4 returns the host's first address on an interface; it is not valid where
	// there is none.
	IPv4(index int) (netip.Prefix, error)
}

// Claim makes one of the switches of a name the only one that uses interfaces. Any
// goroutine may use it.
type Claim interface {
	// Take returns an error that says which other switch has it. Taken once, it is held
	// until Close, or until the process ends.
	Take() error
	Close() error
}

// HostLinks are the interfaces that the kernel has.
type HostLinks struct{}

func (HostLinks) Watch(ctx context.Context) (<-chan link.Event, error) { return link.Watch(ctx) }
func (HostLinks) ByIndex(index int) (link.Link, error)                 { return link.ByIndex(index) }
func (HostLinks) ByName(name string) (link.Link, error)                { return link.ByName(name) }
func (HostLinks) Claim(name, socket string) Claim                      { return owner.NewClaim(name, socket) }
func (HostLinks) IPv4(index int) (netip.Prefix, error)                 { return link.IPv4(index) }

// watchOn passes news on until ctx ends. When the watch ends before that, it says so in
// the log, starts another, and passes an event with an Err on: what the receiver knows
// may be old.
func (m *manager) watchOn(ctx context.Context, news <-chan link.Event) <-chan link.Event {
	events := make(chan link.Event)
	go func() {
		// passOn passes news on until it ends, and returns why it does.
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
					backoff = maxBackoff // it ends as soon as it begins
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

// bootID names this boot of the host; it is empty where the kernel does not say.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
