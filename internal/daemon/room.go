package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vswitch/vswitch/internal/linux/limits"
	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// room keeps the ports within the process's system limits. A Go program that cannot create a
// thread crashes, at an unpredictable time. So ports are counted with their maximum needs,
// and one that does not fit is refused or waits.
type room struct {
	threads, files, space, memory limits.Limit
	read                          time.Time
	taken                         port.Needs // maximum needs of the ports
}

// reading reads the limits.
type reading func() (threads, files limits.Limit)

// limitReading reads one limit.
type limitReading func() limits.Limit

func systemLimits() (threads, files limits.Limit) { return limits.System{}.Threads(), limits.Files() }

// beside returns systemLimits of a process that has other open files.
func beside(others int) reading {
	return func() (threads, files limits.Limit) {
		threads, files = systemLimits()
		if others > 0 && files.Most != math.MaxInt {
			files.Most -= others
			what, how, _ := strings.Cut(files.Name, "; ")
			files.Name = fmt.Sprintf("%s, less %d that it got open; %s", what, others, how)
		}
		return threads, files
	}
}

const (
	// roomAge is how long limits are cached: a restore opens many ports at once.
	roomAge = time.Second

	// ownThreads are the threads of a daemon without ports, beside one per processor: the
	// runtime's own, and those that wait for disks, devices and the log's reader.
	ownThreads = 12

	// ownFiles are the files of a daemon without ports: state, log, netlink, the fast path,
	// and a few dozen API clients.
	ownFiles = 64

	// ownMemory is the memory of a daemon without ports, in bytes: the program's, tables, API clients.
	ownMemory = 24 << 20

	// fastPathMemory is what the fast path takes, in the process and for its tables in the kernel.
	fastPathMemory = 24 << 20
)

// leastMemory is the memory, in bytes, without which there is no daemon.
const leastMemory = 16 << 20

// forPorts returns how many bytes of a limit of memory ports may take to keep. A quarter of what the
// daemon leaves is for the batches that are on their way; see fitMemory.
func forPorts(memory, own int) int { return (memory - own) / 4 * 3 }

// leastThreads are the threads that a daemon without ports takes on one processor.
const leastThreads = 8

// RoomToStart returns an error if the system's limits leave too few open files or threads, or too little address
// space or memory, for a daemon without ports; inherited as in Options. It is called before anything else: Go's
// runtime ends a program that cannot make a thread or have memory.
func RoomToStart(inherited int) error {
	threads, files := beside(inherited)()
	if files.Most < ownFiles { // what follows opens some
		return fmt.Errorf("a switch without ports takes %d open files: %s", ownFiles, files.Name)
	}
	return roomToStart(threads, limits.System{}.Heap(), limits.System{}.Memory())
}

// RoomForFastPath returns an error if the limit of memory leaves too little for the fast path. The kernel ends
// a process that takes more.
func RoomForFastPath() error { return roomForFastPath(limits.System{}.Memory()) }

func roomForFastPath(memory limits.Limit) error {
	if memory.Most < ownMemory+fastPathMemory {
		return tooLittleMemory("a switch with it", ownMemory+fastPathMemory, memory)
	}
	return nil
}

func tooLittleMemory(what string, takes int, l limits.Limit) error {
	return fmt.Errorf("%s takes %d MiB of memory, and there is room for %d: %s; raise it (MemoryMax= of the systemd unit)", what, takes>>20, l.Most>>20, l.Name)
}

func roomToStart(threads, space, memory limits.Limit) error {
	switch {
	case memory.Most < leastMemory:
		return tooLittleMemory("a switch", leastMemory, memory)
	case threads.Most < leastThreads:
		return fmt.Errorf("a switch takes %d threads, and there is room for %d: %s", leastThreads, max(threads.Most, 0), threads.Name)
	case space.Most < limits.KeptSpace:
		return fmt.Errorf("a switch %s", tooLittleSpace(space))
	}
	return nil
}

func tooLittleSpace(l limits.Limit) string {
	return fmt.Sprintf("keeps %d MiB free for its memory, and %d MiB are left: %s", limits.KeptSpace>>20, max(l.Most, 0)>>20, l.Name)
}

// makeRoom counts the needs of a port with that many queues, or with as many as its spec says
// if queues is 0, in place of those counted before. An error names the limit that the port
// exceeds.
func (m *manager) makeRoom(p *managed, queues int) error {
	m.readLimits()
	s, ok := p.kind.(port.Sized)
	if !ok {
		return nil
	}
	needs := s.Needs(p.spec, queues)
	needs.Memory += shapeMemory(p.spec)
	threads := ownThreads + runtime.GOMAXPROCS(0) + m.room.taken.Threads - p.needs.Threads + needs.Threads
	files := ownFiles + m.room.taken.Files - p.needs.Files + needs.Files
	switch {
	case needs != p.needs && m.space != nil && m.room.space.Most < limits.KeptSpace:
		return fmt.Errorf("port %s does not open: the switch %s", p.spec.Name, tooLittleSpace(m.room.space))
	case needs.Threads > p.needs.Threads && threads > m.room.threads.Most:
		return tooMany(p.spec.Name, "threads", needs.Threads, threads, m.room.threads)
	case needs.Files > p.needs.Files && files > m.room.files.Most:
		return tooMany(p.spec.Name, "open files", needs.Files, files, m.room.files)
	}
	if err := m.roomInMemory(p, needs.Memory); err != nil && p.from == nil { // a port that is taken over has its memory
		return err
	}
	m.count(p, needs)
	return nil
}

// shapeRoom counts the queue of a port whose rate changes. The port has its former spec.
func (m *manager) shapeRoom(p *managed, to port.Spec) error {
	if p.dev == nil {
		return nil
	}
	m.readLimits()
	needs := p.needs
	needs.Memory += shapeMemory(to) - shapeMemory(p.spec)
	if err := m.roomInMemory(p, needs.Memory); err != nil {
		return err
	}
	m.count(p, needs)
	return nil
}

// shapeMemory returns what the queue of a shaped port holds at most. A frame takes up to twice its length there.
func shapeMemory(s port.Spec) int {
	if s.RateOut.PerSecond == 0 {
		return 0
	}
	return 2 * vswitch.ShapeBytes
}

// roomInMemory returns an error if the port would take that many bytes and there is no room for them.
func (m *manager) roomInMemory(p *managed, needs int) error {
	if m.memory == nil || m.room.memory.Most == math.MaxInt || needs <= p.needs.Memory {
		return nil
	}
	own := ownMemory
	if m.fast != nil {
		own += fastPathMemory
	}
	all := m.room.taken.Memory - p.needs.Memory + needs
	if most := forPorts(m.room.memory.Most, own); all > most {
		return fmt.Errorf("port %s can take %s MiB of memory for its queues, which makes %s with all others, and there is room for %s: %s is %s MiB; raise it (MemoryMax= of the systemd unit)",
			p.spec.Name, mebi(needs), mebi(all), mebi(max(most, 0)), m.room.memory.Name, mebi(m.room.memory.Most))
	}
	return nil
}

// nextMemory is the memory, in bytes, that a next process takes until it is the switch.
const nextMemory = 12 << 20

// roomForNext returns an error if the limit of memory leaves too little for a next process beside this one. The
// kernel would end one of the two.
func (m *manager) roomForNext() error {
	return (&upgradeRoom{left: m.memoryLeft()}).take("a next process", nextMemory)
}

func (m *manager) memoryLeft() limits.Limit {
	if m.left == nil {
		return limits.Limit{Most: math.MaxInt}
	}
	return m.left()
}

// copies is how many times both processes together hold what waits in a port, at most, while it is on its way
// from one to the other.
const copies = 10

// upgradeRoom is what the limit of memory leaves for an upgrade.
type upgradeRoom struct {
	left  limits.Limit
	taken int
}

// pass counts that many bytes, which wait in a port and are given to the next process.
func (u *upgradeRoom) pass(bytes int) error {
	return u.take("what waits in the ports, on its way to the next process,", copies*bytes)
}

func (u *upgradeRoom) take(what string, bytes int) error {
	if u.taken += bytes; u.left.Most < u.taken {
		return fmt.Errorf("%s takes %s MiB of memory or more, and %s are left: %s; raise it for the time of the upgrade",
			what, mebi(u.taken), mebi(max(u.left.Most, 0)), u.left.Name)
	}
	return nil
}

// mebi writes bytes in MiB.
func mebi(n int) string { return strconv.FormatFloat(float64(n)/(1<<20), 'f', 1, 64) }

// readLimits reads the limits unless it has just done so.
func (m *manager) readLimits() {
	now := time.Now()
	if now.Sub(m.room.read) < roomAge {
		return
	}
	m.room.threads, m.room.files = m.limits()
	if m.space != nil {
		m.room.space = m.space()
	}
	if m.memory != nil {
		m.room.memory = m.memory()
	}
	m.room.read = now
}

// free stops counting a port: it is not open.
func (m *manager) free(p *managed) { m.count(p, port.Needs{}) }

func (m *manager) count(p *managed, needs port.Needs) {
	m.room.taken.Threads += needs.Threads - p.needs.Threads
	m.room.taken.Files += needs.Files - p.needs.Files
	m.room.taken.Memory += needs.Memory - p.needs.Memory
	p.needs = needs
}

func tooMany(name, what string, needs, all int, l limits.Limit) error {
	return fmt.Errorf("port %s takes %d %s, which makes %d with all others, and there is room for %d: %s", name, needs, what, all, max(l.Most, 0), l.Name)
}

// fitProcessors limits the processors of the Go runtime if the thread limit leaves too few
// threads: the runtime makes one for each processor.
func fitProcessors(threads limits.Limit, log *slog.Logger) {
	most := max(1, threads.Most/4)
	if was := runtime.GOMAXPROCS(0); most < was {
		runtime.GOMAXPROCS(most)
		log.Warn("the switch works on fewer processors, for want of threads", "processors", most, "of", was, "limit", threads.Name)
	}
}

// makeThreads makes n threads now, which the runtime keeps for later. Then neither a limit of threads that
// somebody lowers nor others who use up what is left ends the daemon at the next one.
func makeThreads(n int) {
	var made, done sync.WaitGroup
	made.Add(n)
	for range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			made.Done()
			made.Wait() // each has a thread of its own
		})
	}
	done.Wait()
}

// leastHeap is below what a daemon without ports takes: with less, collecting garbage would take
// the processors' time and gain nothing.
const leastHeap = 48 << 20

// memoryAge is how long a limit of memory that somebody changes is not followed.
const memoryAge = 5 * time.Second

// memoryFit has the Go runtime and the ports keep within the limit of the process's cgroup.
type memoryFit struct {
	set int64 // the runtime's limit as fit set it
}

// follow fits the process to the limit as it is read, now and while ctx lasts.
func (f *memoryFit) follow(ctx context.Context, read limitReading, log *slog.Logger) {
	t := time.NewTicker(memoryAge)
	defer t.Stop()
	for was := read(); ; {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if now := read(); now.Most != was.Most {
			f.fit(now)
			log.Info("the limit of memory is another one", "bytes", now.Most, "limit", now.Name)
			was = now
		}
	}
}

// fit has the Go runtime keep within the limit of the process's cgroup, or the kernel ends the
// process where garbage could have been collected. A fifth is left for what the runtime does not
// count, such as sockets and BPF maps. The environment's GOMEMLIMIT stands. What is received takes its quarter
// of what the daemon leaves.
func (f *memoryFit) fit(memory limits.Limit) {
	heap, frames := int64(math.MaxInt64), math.MaxInt
	if memory.Most < math.MaxInt64/5 {
		heap = max(leastHeap, int64(memory.Most)/5*4)
		frames = max(0, memory.Most-ownMemory-fastPathMemory) / 4
	}
	if now := debug.SetMemoryLimit(-1); now == math.MaxInt64 || now == f.set {
		debug.SetMemoryLimit(heap)
		f.set = heap
	}
	rxbuf.LimitBatches(frames)
}
