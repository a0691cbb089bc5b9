package daemon

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/clients"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/handover"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// This file is the side of the process that is replaced; takeover.go is that of the next one.
// internal/handover says what they say to each other.

const (
	// startWait is how long the next process may take until it has opened the ports that both
	// may have open. Meanwhile this process works; only commands that change it wait.
	startWait = time.Minute

	// holdWait is how long it may take from then on, while frames wait in the kernel.
	holdWait = 10 * time.Second

	// pauseWait is the part of it until the frames that ports took are sent.
	pauseWait = 2 * time.Second
)

// serveUpgrade answers POST /v1/upgrade: the connection becomes the one by which this process
// hands over to the next.
func (m *manager) serveUpgrade(w http.ResponseWriter, r *http.Request) {
	conn, err := m.mayUpgrade(r)
	if err != nil {
		feature.Refuse(w, err)
		return
	}
	defer m.handing.Store(false)
	hijacked, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		feature.Refuse(w, fail(api.CodeFailed, "%w", err))
		return
	}
	_ = conn.SetDeadline(time.Now().Add(startWait))
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: vswitch-handover\r\n\r\n")
	if err == nil {
		err = m.handOver(handover.Conn{UnixConn: conn})
	}
	m.log.Warn("the switch is not handed over; it goes on as before", "reason", err)
	hijacked.Close()
}

// mayUpgrade returns the connection of a request to hand over. The other end gets all that this
// process has, so it must have the same rights.
func (m *manager) mayUpgrade(r *http.Request) (*net.UnixConn, error) {
	conn, ok := clients.Conn(r).(*net.UnixConn)
	if !ok {
		return nil, fail(api.CodeInvalid, "this connection cannot carry an upgrade; use the control socket")
	}
	uid, err := handover.PeerUID(conn)
	switch {
	case err != nil:
		return nil, fail(api.CodeFailed, "%w", err)
	case uid != 0 && uid != os.Geteuid():
		return nil, fail(api.CodeInvalid, "only root and the user of the switch may replace it, not user %d", uid)
	}
	if err := m.roomForNext(); err != nil {
		return nil, fail(api.CodeFailed, "%w", err)
	}
	if !m.handing.CompareAndSwap(false, true) {
		return nil, fail(api.CodeConflict, "an upgrade is under way; try again when it has ended")
	}
	return conn, nil
}

// hello says how this process runs. Its environment is that of its start: what a service manager
// sets in it is for the next process as well.
func (m *manager) hello() handover.Hello {
	h := m.how
	h.Format, h.Version = handover.Format, m.version
	h.PID, h.Netns, h.Cgroup = os.Getpid(), handover.Netns(), handover.Cgroup()
	h.Executable = handover.IDOf("/proc/self/exe")
	return h
}

// handOver hands over to the process at the other end. It returns only if that fails, and this
// process goes on.
func (m *manager) handOver(c handover.Conn) error {
	var begin handover.Result
	if _, err := c.Receive(&begin); err != nil {
		return err
	}
	if err := c.Send(m.hello(), syscall.Stdout, syscall.Stderr); err != nil {
		return err
	}
	var claim handover.Claim
	switch _, err := c.Receive(&claim); {
	case errors.Is(err, io.EOF):
		return errors.New("no next process came")
	case err != nil:
		return err
	case claim.Format != handover.Format:
		why := fmt.Errorf("vswitch %s takes over in format %d, and vswitch %s hands over in format %d; stop the one and start the other", claim.Version, claim.Format, m.version, handover.Format)
		return errors.Join(why, c.Send(handover.Offer{Refused: why.Error()}))
	}
	select {
	case m.changing <- struct{}{}:
	case <-time.After(changeWait):
		why := errors.New("a change of the switch has not ended; try again")
		return errors.Join(why, c.Send(handover.Offer{Refused: why.Error()}))
	}
	defer func() { <-m.changing }()
	var o handover.Offer
	var files []int
	var ports []*managed
	goOn := func() error {
		for _, p := range ports {
			p.release()
		}
		if m.fast != nil {
			m.fast.Continue() // the next process may have put its programs at the devices
		}
		return nil
	}
	err := m.do(func() (err error) {
		m.given = make(map[string]port.Port)
		for _, p := range m.sorted() {
			m.claim(p)
			ports = append(ports, p)
		}
		m.sw.Refresh() // the ages of stations that the fast path heard
		o, files, err = m.offer()
		return err
	})
	if err == nil {
		err = c.Send(o, files...)
	}
	handover.Close(files)
	if err == nil {
		err = receiveResult(c)
	}
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(holdWait))
		err = m.do(func() error {
			if err := m.pass(c); err != nil {
				return err
			}
			m.service.Send(fmt.Sprintf("MAINPID=%d", claim.PID))
			m.log.Info("switch handed over", "to_process", claim.PID, "version", claim.Version)
			// The connection ends with the process, so the next one sees that. Until then nobody
			// else gets the turn.
			close(m.replaced)
			select {}
		})
	}
	return errors.Join(err, m.do(goOn))
}

// receiveResult receives how a step of the next process ended.
func receiveResult(c handover.Conn) error {
	var r handover.Result
	switch _, err := c.Receive(&r); {
	case errors.Is(err, io.EOF):
		return errors.New("the next process has ended")
	case err != nil:
		return fmt.Errorf("the next process does not answer: %w", err)
	case r.Error != "":
		return errors.New(r.Error)
	}
	return nil
}

// offer returns what the next process needs while this one works, with its descriptors.
func (m *manager) offer() (o handover.Offer, files []int, err error) {
	defer func() {
		if err != nil {
			handover.Close(files)
			files = nil
		}
	}()
	o.Version = m.version
	st := m.snapshot()
	st.Version, st.WrittenBy = store.Version, m.version
	if o.State, err = json.Marshal(st); err != nil {
		return o, files, err
	}
	add := func(count *int, of syscall.Conn) {
		if err == nil {
			var dup int
			if dup, err = handover.DupOf(of); err == nil {
				files = append(files, dup)
				*count++
			}
		}
	}
	ln, locks := m.own.socket.give()
	add(&o.Listeners, ln)
	for _, l := range locks {
		add(&o.Locks, l)
	}
	if s := m.own.store; s != nil {
		add(&o.StateLocks, s.Lock())
	}
	if m.fast != nil {
		if lock := m.fast.Lock(); lock != nil {
			add(&o.Pins, lock)
		}
	}
	claim, claimErr := m.claimed.File()
	if claim != nil {
		add(&o.Interfaces, claim)
		claim.Close()
	}
	if err = cmp.Or(err, claimErr); err != nil {
		return o, files, err
	}
	for _, p := range m.sorted() {
		given := handover.Port{Name: p.spec.Name, Open: p.dev != nil, Shut: p.shutBy, Recovery: p.recovery}
		if files, err = m.givePort(p, &given, false, files); err != nil {
			return o, files, err
		}
		o.Ports = append(o.Ports, given)
	}
	return o, files, nil
}

// givePort puts what a port gives into given and appends its descriptors to files.
func (m *manager) givePort(p *managed, given *handover.Port, paused bool, files []int) ([]int, error) {
	g, ok := p.dev.(port.Giver)
	if _, heir := as[port.Heir](p.kind); !ok || !heir {
		return files, nil
	}
	parcel, err := g.Give(paused)
	switch {
	case err != nil:
		return files, fmt.Errorf("port %s: %w", p.spec.Name, err)
	case parcel == nil:
		given.Later = true
		return files, nil
	}
	if !paused {
		m.given[p.spec.Name] = p.dev
	}
	given.Given, given.Format, given.Data, given.Files = true, parcel.Format, parcel.Data, len(parcel.Files)
	return append(files, parcel.Files...), nil
}

// pass holds the switch, gives the rest, and lets the next process go on. Once the switch is held it
// has the turn all the time, so nothing else changes. With an error this process goes on.
func (m *manager) pass(c handover.Conn) (err error) {
	resume, err := m.hold()
	defer func() {
		if err != nil {
			err = errors.Join(err, resume())
		}
	}()
	var r handover.Rest
	var files []int
	if err == nil {
		r, files, err = m.rest()
	}
	if err == nil && m.saver != nil && !m.saver.Pause(holdWait/2) {
		err = errors.New("the disk of the state does not answer")
	}
	if err != nil {
		handover.Close(files)
		return errors.Join(err, c.Send(handover.Rest{Error: err.Error()}))
	}
	err = c.Send(r, files...)
	handover.Close(files)
	if err == nil {
		err = receiveResult(c)
	}
	if err == nil {
		err = c.Send(handover.Go{})
	}
	if err != nil {
		return err
	}
	var done handover.Result
	switch _, err := c.Receive(&done); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil // it is there, and goes on as soon as it can: two must not
	case err != nil:
		return fmt.Errorf("the next process ended when it was about to go on: %w", err)
	}
	return nil
}

// hold stops all that changes the switch, and returns what undoes it.
func (m *manager) hold() (resume func() error, err error) {
	m.held = time.Now()
	if !m.sw.Hold(pauseWait) {
		err = errors.New("not all ports could be paused")
	}
	m.off(func() { m.sw.AwaitControl(pauseWait) }) // features receive what came for them
	m.stats = make(map[string]vswitch.PortStats)
	for _, p := range m.ports {
		m.stats[p.spec.Name] = p.sw.Stats() // before Suspend, which hides those of the fast path
	}
	if m.fast != nil {
		m.fast.Suspend()
	}
	return func() error {
		off := noSettings(features(m.hosted)).features
		err := m.setFeatures(off, m.settings.features)
		if m.fast != nil {
			m.fast.Continue()
		}
		if m.saver != nil {
			m.saver.Resume()
		}
		m.sw.Resume()
		return err
	}, err
}

// features returns the features of the program.
func features(hosted []*hosted) (all []feature.Feature) {
	for _, h := range hosted {
		all = append(all, h.Feature)
	}
	return all
}

// rest returns what may have changed since the offer, and stops the features: the next process
// needs their sockets.
func (m *manager) rest() (r handover.Rest, files []int, err error) {
	r = handover.Rest{Held: m.held, Injected: m.sw.Injected(), Departed: toWire(m.sw.Departed()),
		Stations: make(map[string][]byte), Counters: make(map[string]handover.Counters)}
	names := make(map[uint16]string)
	for name, p := range m.ports {
		names[p.sw.Number()] = name
		r.Counters[name] = toWire(m.stats[name])
	}
	for e := range m.sw.FDB().All() {
		if name := names[e.Port]; e.Kind == fdb.Dynamic && name != "" {
			r.Stations[name] = appendStation(r.Stations[name], e)
		}
	}
	m.endFeatures()
	r.Sections, r.Features = m.featureStates(), make(map[string]handover.Feature)
	for _, h := range m.hosted {
		if err := h.give(); err != nil {
			m.log.Warn("a feature will start anew", "feature", h.Name, "reason", err)
		}
		if h.given != nil {
			r.Features[h.Name] = handover.Feature(*h.given)
		}
	}
	m.stopFeatures()
	for _, h := range m.hosted {
		if h.instance != nil {
			h.kept = r.Sections[h.key()]
			h.run(nil)
		}
	}
	m.shareMoves()
	m.shareObservers()
	if r.Ports, files, err = m.givePaused(); err != nil {
		return r, nil, err
	}
	room := upgradeRoom{left: m.memoryLeft()}
	for _, given := range r.Ports {
		if err = room.pass(len(given.Data)); err != nil {
			handover.Close(files)
			return r, nil, err
		}
	}
	return r, files, nil
}

// givePaused returns what the ports give that gave nothing while they worked. Some wait a moment for
// their peers, so all do so at the same time.
func (m *manager) givePaused() (all []handover.Port, files []int, err error) {
	var ports []*managed
	for _, p := range m.sorted() {
		if p.dev != nil && m.given[p.spec.Name] != p.dev {
			ports = append(ports, p)
			all = append(all, handover.Port{Name: p.spec.Name, Open: true, Shut: p.shutBy, Recovery: p.recovery})
		}
	}
	type result struct {
		files []int
		err   error
	}
	results := make([]result, len(ports))
	var given sync.WaitGroup
	for i, p := range ports {
		given.Go(func() { results[i].files, results[i].err = m.givePort(p, &all[i], true, nil) })
	}
	given.Wait()
	for _, r := range results {
		files, err = append(files, r.files...), errors.Join(err, r.err)
	}
	if err != nil {
		handover.Close(files)
		return nil, nil, err
	}
	return all, files, nil
}

// stationSize is the length of a station: its key and its age in seconds.
const stationSize = 8 + 4

func appendStation(b []byte, e fdb.Entry) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(e.Key))
	return binary.BigEndian.AppendUint32(b, uint32(e.Age/time.Second))
}

func toWire(st vswitch.PortStats) handover.Counters {
	direction := func(c vswitch.Counters) handover.Direction {
		a := counters(c)
		return handover.Direction{Frames: a.Frames, Bytes: a.Bytes, Copies: a.Copies, Dropped: a.Dropped}
	}
	return handover.Counters{RX: direction(st.RX), TX: direction(st.TX), Fast: st.Fast}
}

func fromWire(c handover.Counters) vswitch.PortStats {
	direction := func(d handover.Direction) vswitch.Counters {
		to := vswitch.Counters{Frames: d.Frames, Bytes: d.Bytes, Copies: d.Copies}
		for why := range to.Dropped {
			to.Dropped[why] = d.Dropped[port.Drop(why).String()]
		}
		return to
	}
	return vswitch.PortStats{RX: direction(c.RX), TX: direction(c.TX), Fast: c.Fast}
}
