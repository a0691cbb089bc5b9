// Package daemon is one running switch: it keeps the ports that were asked for
// attached to devices that come and go, remembers them on disk, and serves the
// control API on a unix socket. Only cmd/vswitch calls it. Run returns when its
// context ends, with everything given back but what is meant to stay: the state
// and the devices that virtual machines hold.
//
// Every change, whether asked for or caused by the system, happens on the one
// goroutine of manager.run, away from the workers that carry frames.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Options say what to run. Name, Version, Socket, Kinds, Links and Log must be set, Kinds
// by Prepare at the latest.
type Options struct {
	Name        string
	Version     string
	Socket      string // path of the control socket
	SocketGroup string // who may use it beside root: a group's name or number
	SocketDir   string // where ports have their sockets that name none
	StateDir    string // where to keep the state; empty: nowhere
	FDBSize     int    // most entries; 0: fdb.DefaultCapacity
	Kinds       port.Kinds
	Links       Links
	Log         *slog.Logger

	// Features are what the switch hosts beside ports.
	Features []feature.Feature

	// Overrides are Settings that hold for this run, whatever was kept.
	Overrides setting.Patch

	// Prepare is called when the socket and the state are this process's alone, for
	// what only one process may open. It may change the Options; nil is nothing.
	Prepare func(*Options) error

	FastPath    FastPath // nil: none
	FastPathOff string   // why there is none

	limits reading // nil: the system's

	ids *identity // of Run; nil: one that is not kept

	settings, kept switchSettings // in force, and without Overrides

	// What follows from settings, for newManager.
	Aging        time.Duration
	Recovery     time.Duration // after which a port comes back that a guard shut down; 0: not
	STP          *STP          // nil: no spanning tree
	Snooping     *Snooping     // nil: multicast is flooded
	GroupForward uint16        // reserved addresses to forward, see vswitch.Switch.SetGroupForward
	HoldDown     time.Duration // how long a flapping station is held; 0: not
}

// FastPath is a fast path that outlives the process.
type FastPath interface {
	vswitch.FastPath

	// Start puts into force what was published, once the ports are restored.
	Start()

	// Stop leaves what is in force as it is.
	Stop()

	// Pinned tells whether that goes on without the process.
	Pinned() bool
}

// stopGrace is how long answers under way may take once the daemon is to stop:
// a part of the second in which a stop must be done.
const stopGrace = 300 * time.Millisecond

// Run runs the switch until ctx ends.
func Run(ctx context.Context, o Options) (err error) {
	if o.StateDir == "" { // else what they lack may be in the state
		if _, err := noSettings(o.Features).merge(o.Overrides); err != nil {
			return err
		}
	}
	lock, err := lockSocket(o.Socket)
	if err != nil {
		return err
	}
	defer lock.Close()

	var saved savedState
	var keep func(savedState) error
	// Without a state, a daemon that starts again before the host does has the same
	// addresses: /run is empty after a boot.
	identityPath := o.Socket + ".identity"
	if o.StateDir != "" {
		st, err := openStore(o.StateDir, o.Version)
		if err != nil {
			return err
		}
		defer st.Close()
		var aside string
		if saved, aside, err = st.load(); err != nil {
			return err
		}
		if aside != "" {
			o.Log.Error("state could not be read: starting without it", "kept_as", aside)
		}
		keep = st.save
		identityPath = filepath.Join(o.StateDir, "identity.json")
	}

	if o.limits == nil {
		o.limits = systemLimits
	}
	threads, _ := o.limits()
	fitProcessors(threads, o.Log)
	o.ids = openIdentity(identityPath, o.Name, saved.Ports, o.Log)

	ln, err := listen(o.Socket, o.SocketGroup, lock, o.Log)
	if err != nil {
		return err
	}
	defer ln.Close()

	if o.Prepare != nil {
		if err := o.Prepare(&o); err != nil {
			return err
		}
	}
	if err := saved.known(o.Kinds, o.Version); err != nil {
		return fmt.Errorf("in %s, %w", o.StateDir, err)
	}
	if o.kept, err = noSettings(o.Features).merge(saved.Switch); err != nil {
		return fmt.Errorf("%s: the settings of the switch: %w; mend or remove them there", o.StateDir, err)
	}
	if o.settings, err = o.kept.merge(o.Overrides); err != nil {
		return err
	}
	o.settings.into(&o)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events, err := o.Links.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watching network interfaces: %w", err)
	}

	m, err := newManager(o, keep)
	if err != nil {
		return err
	}
	loop := make(chan struct{})
	go func() { defer close(loop); m.run(ctx, saved, events) }()

	srv := &http.Server{
		Handler:           m.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second, // a client that says nothing gives its place back
		IdleTimeout:       20 * time.Second,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	o.Log.Info("switch started", "name", o.Name, "socket", o.Socket, "state_dir", o.StateDir, "version", o.Version)

	select {
	case <-ctx.Done():
	case err = <-served:
		err = fmt.Errorf("serving %s: %w", o.Socket, err)
	}
	stop()
	grace, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		err = errors.Join(err, srv.Close())
	}
	<-loop
	o.Log.Info("switch stopped", "name", o.Name)
	return err
}
