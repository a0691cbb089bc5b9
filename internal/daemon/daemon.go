// Package daemon runs one switch: it keeps the configured ports attached to devices that come and
// go, keeps them on disk, and serves the control API on a unix socket. Only cmd/vswitch calls it.
// Run returns when its context ends and releases everything except what must stay: the state and
// the devices that virtual machines hold.
//
// Every change, requested or caused by the system, happens on the one goroutine of manager.run,
// away from the workers that forward frames.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/clients"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/files/flock"
	"github.com/vswitch/vswitch/internal/handover"
	"github.com/vswitch/vswitch/internal/linux/limits"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Options configure Run. Name, Version, Socket, Kinds, Links and Log are required; Prepare may
// set Kinds.
type Options struct {
	Name        string
	Version     string
	Socket      string // path of the control socket
	SocketGroup string // group that may use it beside root, by name or number
	SocketDir   string // directory for the sockets of ports that name none
	StateDir    string // directory for the state; empty: do not keep it
	FDBSize     int    // maximum number of entries; 0: fdb.DefaultCapacity
	Kinds       port.Kinds
	Links       Links
	Log         *slog.Logger

	// Features are the features that the switch hosts beside ports.
	Features []feature.Feature

	// Config is applied once the ports are restored; without a document: nothing. ConfigError
	// rewords its errors for the log; it may be nil.
	Config      api.ApplyConfig
	ConfigError func(error) error

	// Inherited is how many open files the process got that are not the switch's.
	Inherited int

	// Sandbox is what restricts the process; Prepare may set it. Nil: nothing.
	Sandbox []string

	// Service is the service manager that started the daemon; nil: none. Stored are the files that
	// it has kept; they become the daemon's.
	Service Service
	Stored  []Stored

	// Overrides are settings that override the kept ones for this run.
	Overrides setting.Patch

	// Prepare opens what only one process may open. It runs once the socket and the state belong
	// to this process alone, and may change the Options. It may be nil.
	Prepare func(*Options) error

	Revision    string   // the commit of which the program was built
	FastPath    FastPath // nil: none
	FastPathOff string   // why there is none

	// Losses shows what the kernel's devices lose in silence; nil: nobody does.
	Losses vswitch.Losses

	// TakeOver makes this process take the switch over from another; nil: it starts one.
	TakeOver *TakeOver

	// How says how the process was started, for the next one.
	How handover.Hello

	limits              reading      // nil: read from the system
	space, memory, left limitReading // nil: unlimited

	own    *belongings
	former *former
	Pins   *os.File // the lock of what the fast path keeps in the kernel, for Prepare; nil: it takes it

	ids *identity // set by Run; nil: an identity that is not kept

	settings, kept switchSettings             // in force; and without Overrides
	sections       map[string]json.RawMessage // what features keep, by name

	// The rest is derived from settings, for newManager.
	Aging        time.Duration
	Recovery     time.Duration // until a port that a guard shut down recovers; 0: never
	GroupForward uint16        // reserved addresses to forward, see vswitch.Switch.SetGroupForward
}

// catalog returns what ports can be, in a list of its own.
func (o *Options) catalog() port.Catalog { return Catalog(slices.Clone(o.Kinds), o.Features) }

// Catalog returns what the ports of a switch with these kinds and features can be.
func Catalog(kinds port.Kinds, features []feature.Feature) port.Catalog {
	c := port.Catalog{Kinds: kinds}
	for _, f := range features {
		if f.Port != nil {
			c.Sections = append(c.Sections, f.Port)
		}
	}
	return c
}

// Service is a service manager, such as systemd. Its methods do not wait.
type Service interface {
	// Send sends assignments, such as READY=1, one a line (sd_notify(3)).
	Send(assignments string)

	// Watchdog returns how often it wants to hear WATCHDOG=1; 0: it does not.
	Watchdog() time.Duration

	// Store has it keep a file under a name, in place of one that it has, for the process that it
	// starts after this one. The descriptor stays the caller's. Remove has it forget the file.
	Store(name string, fd int)
	Remove(name string)
}

type noService struct{}

func (noService) Send(string)             {}
func (noService) Watchdog() time.Duration { return 0 }
func (noService) Store(string, int)       {}
func (noService) Remove(string)           {}

// FastPath is a fast path that can outlive the process.
type FastPath interface {
	vswitch.FastPath

	// Start puts the published snapshot into force, once the ports are restored.
	Start()

	// Stop ends updates and leaves what is in force.
	Stop()

	// Backlog returns how many stations wait to be in force.
	Backlog() int

	// Pinned reports whether the fast path keeps forwarding without the process.
	Pinned() bool

	// Suspend leaves what is in force to another process; Continue undoes that. Lock returns
	// the file that gives the other one the right to it; nil: it needs none.
	Suspend()
	Continue()
	Lock() *os.File
}

// stopGrace is how long pending answers may take while the daemon stops: part of the second
// within which it must stop.
const stopGrace = 300 * time.Millisecond

// belongings are what only one process of a switch may have at a time.
type belongings struct {
	lock   flock.File // of the control socket
	socket *listener
	store  *store.Store // nil: no state is kept

	// leave: another process has them too, so this one leaves them as they are.
	leave atomic.Bool
}

func (b *belongings) left() bool { return b != nil && b.leave.Load() }

// close gives them back, in the reverse order of their making.
func (b *belongings) close() {
	if b.left() {
		return // the kernel closes them with the process
	}
	if b.socket != nil {
		b.socket.Close()
	}
	if b.store != nil {
		b.store.Close()
	}
	if b.lock.File != nil {
		b.lock.Close()
	}
}

// openStore opens the state, which another process may have given.
func (o *Options) openStore() (*store.Store, error) {
	if o.former != nil && o.former.state != nil {
		return store.New(flock.File{File: o.former.state}, o.StateDir, o.Version), nil
	}
	return store.Open(o.StateDir, o.Version)
}

// Run runs the switch until ctx ends.
func Run(ctx context.Context, o Options) (err error) {
	if o.StateDir == "" { // otherwise the missing options may be in the state
		if _, err := noSettings(o.Features).merge(o.Overrides); err != nil {
			return err
		}
	}
	own := &belongings{}
	defer own.close()
	if o.TakeOver != nil {
		own.leave.Store(true)
		if o.former, err = claimSwitch(o.TakeOver, o.Version); err != nil {
			return err
		}
		own.lock, o.Pins = o.former.locks[0], o.former.pins
	} else if own.lock, err = lockSocket(o.Socket); err != nil {
		return err
	}
	o.own = own

	var saved store.State
	if o.former != nil {
		saved = o.former.saved
	}
	var keep func(store.State) error
	var journal *store.Journal
	// Without a state, keep the identity beside the socket: a restarted daemon then has the same
	// addresses until the host boots, which empties /run.
	identityPath := o.Socket + ".identity"
	if o.StateDir != "" {
		st, err := o.openStore()
		if err != nil {
			return err
		}
		own.store = st
		st.Log = o.Log
		if o.former == nil {
			var aside store.Aside
			if saved, aside, err = st.Load(); err != nil {
				return err
			}
			if aside.Path != "" {
				o.Log.Error("state could not be read: starting without it", "reason", aside.Why, "kept_as", aside.Path,
					"advice", "to go back to it, stop the switch, mend that file and name it state.json again")
			}
		}
		keep, journal = st.Save, store.OpenJournal(o.StateDir)
		identityPath = filepath.Join(o.StateDir, "identity.json")
	}

	if o.limits == nil {
		o.limits, o.space, o.memory = beside(o.Inherited), limits.System{}.Heap, limits.System{}.Memory
		o.left = limits.System{}.MemoryLeft
		var f memoryFit
		f.fit(o.memory())
		go f.follow(ctx, o.memory, o.Log)
	}
	threads, _ := o.limits()
	fitProcessors(threads, o.Log)
	makeThreads(max(0, min(ownThreads+runtime.GOMAXPROCS(0), threads.Most-leastThreads)))

	if o.former != nil {
		own.socket, err = receiveListener(o.Socket, o.SocketGroup, o.former.listener, o.former.locks, o.Log)
	} else {
		own.socket, err = listen(o.Socket, o.SocketGroup, own.lock, o.Log)
	}
	if err != nil {
		return err
	}
	o.ids = openIdentity(identityPath, o.Name, saved.Ports, o.Log)
	if own.store != nil {
		own.store.Beside = o.ids.renew
	}

	if o.Prepare != nil {
		if err := o.Prepare(&o); err != nil {
			return err
		}
	}
	if err := known(saved, o.catalog(), o.Features, o.Version); err != nil {
		return fmt.Errorf("in %s, %w", o.StateDir, err)
	}
	if o.kept, err = noSettings(o.Features).merge(saved.Switch); err != nil {
		return fmt.Errorf("%s: the settings of the switch: %w; mend or remove them there", o.StateDir, err)
	}
	if o.settings, err = o.kept.merge(o.Overrides); err != nil {
		return err
	}
	o.settings.into(&o)
	o.sections = saved.Sections

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events, err := o.Links.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watching network interfaces: %w", err)
	}

	m, err := newManager(o, keep, journal)
	if err != nil {
		return err
	}
	logOrphans(saved, o.Features, o.Log)
	o.sections, saved.Sections = nil, nil // the features have them now
	loop := make(chan struct{})
	go func() { defer close(loop); m.run(ctx, saved, events) }()

	srv := &http.Server{
		Handler:           m.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second, // drops a client that sends nothing
		IdleTimeout:       20 * time.Second,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	ln := clients.Bound(srv, own.socket, maxClients, o.Log.With("socket", o.Socket))
	served := make(chan error, 1)
	var failed <-chan error
	if o.former != nil {
		failed = o.former.failed
		o.Config = api.ApplyConfig{} // it was applied
		select {
		case <-m.restored:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return errors.New("stopped while the switch was taken over; the former process goes on")
		}
	}
	go func() { served <- srv.Serve(ln) }()
	go m.begin(o)
	o.Log.Info("switch started", "name", o.Name, "socket", o.Socket, "state_dir", o.StateDir, "version", o.Version)

	select {
	case <-ctx.Done():
	case <-m.replaced:
		own.leave.Store(true)
		own.socket.leave()
	case err = <-served:
		err = fmt.Errorf("serving %s: %w", o.Socket, err)
	}
	if own.left() {
		return nil // all that this process has, another has too
	}
	m.service.Send("STOPPING=1")
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
