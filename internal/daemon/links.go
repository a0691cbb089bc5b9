package daemon

import (
	"context"

	"github.com/vswitch/vswitch/internal/link"
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
}

// HostLinks are the interfaces that the kernel has.
type HostLinks struct{}

func (HostLinks) Watch(ctx context.Context) (<-chan link.Event, error) { return link.Watch(ctx) }
func (HostLinks) ByIndex(index int) (link.Link, error)                 { return link.ByIndex(index) }
func (HostLinks) ByName(name string) (link.Link, error)                { return link.ByName(name) }
