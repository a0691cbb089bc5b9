package daemon

import (
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/vswitch/vswitch/internal/linux/limits"
	"github.com/vswitch/vswitch/port"
)

// room keeps the ports within the process's system limits. A Go program that cannot create a
// thread crashes, at an unpredictable time. So ports are counted with their maximum needs,
// and one that does not fit is refused or waits.
type room struct {
	threads, files, space limits.Limit
	read                  time.Time
	taken                 port.Needs // maximum needs of the ports
}

// reading reads the limits.
type reading func() (threads, files limits.Limit)

// spaceReading reads how much address space is left.
type spaceReading func() limits.Limit

func systemLimits() (threads, files limits.Limit) { return limits.System{}.Threads(), limits.Files() }

const (
	// roomAge is how long limits are cached: a restore opens many ports at once.
	roomAge = time.Second

	// ownThreads are the threads of a daemon without ports, beside one per processor: the
	// runtime's own, and those that wait for disks, devices and the log's reader.
	ownThreads = 12

	// ownFiles are the files of a daemon without ports: state, log, netlink, the fast path,
	// and a few dozen API clients.
	ownFiles = 64
)

// leastThreads are the threads that a daemon without ports takes on one processor.
const leastThreads = 8

// leastSpace is the address space, in bytes, without which no port opens. Go's runtime takes 64 MiB at a
// time, and ends a program that gets none. What ports take is small beside that.
const leastSpace = 256 << 20

// RoomToStart returns an error if the system's limits leave too few threads, or too little address
// space, for a daemon without ports. It is called before anything else: Go's runtime ends a program
// that cannot make a thread or have memory.
func RoomToStart() error {
	threads, _ := systemLimits()
	return roomToStart(threads, limits.System{}.AddressSpace())
}

func roomToStart(threads, space limits.Limit) error {
	switch {
	case threads.Most < leastThreads:
		return fmt.Errorf("a switch takes %d threads, and there is room for %d: %s", leastThreads, max(threads.Most, 0), threads.Name)
	case space.Most < leastSpace:
		return fmt.Errorf("a switch %s", tooLittleSpace(space))
	}
	return nil
}

func tooLittleSpace(l limits.Limit) string {
	return fmt.Sprintf("keeps %d MiB of address space for its memory, and %d MiB are left: %s", leastSpace>>20, max(l.Most, 0)>>20, l.Name)
}

// makeRoom counts the needs of a port with that many queues, or with as many as its spec says
// if queues is 0, in place of those counted before. An error names the limit that the port
// exceeds.
func (m *manager) makeRoom(p *managed, queues int) error {
	if now := time.Now(); now.Sub(m.room.read) >= roomAge {
		m.room.threads, m.room.files = m.limits()
		if m.space != nil {
			m.room.space = m.space()
		}
		m.room.read = now
	}
	s, ok := p.kind.(port.Sized)
	if !ok {
		return nil
	}
	needs := s.Needs(p.spec, queues)
	threads := ownThreads + runtime.GOMAXPROCS(0) + m.room.taken.Threads - p.needs.Threads + needs.Threads
	files := ownFiles + m.room.taken.Files - p.needs.Files + needs.Files
	switch {
	case needs != p.needs && m.space != nil && m.room.space.Most < leastSpace:
		return fmt.Errorf("port %s does not open: the switch %s", p.spec.Name, tooLittleSpace(m.room.space))
	case needs.Threads > p.needs.Threads && threads > m.room.threads.Most:
		return tooMany(p.spec.Name, "threads", needs.Threads, threads, m.room.threads)
	case needs.Files > p.needs.Files && files > m.room.files.Most:
		return tooMany(p.spec.Name, "open files", needs.Files, files, m.room.files)
	}
	m.count(p, needs)
	return nil
}

// free stops counting a port: it is not open.
func (m *manager) free(p *managed) { m.count(p, port.Needs{}) }

func (m *manager) count(p *managed, needs port.Needs) {
	m.room.taken.Threads += needs.Threads - p.needs.Threads
	m.room.taken.Files += needs.Files - p.needs.Files
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

// leastMemory is below what a daemon without ports takes: with less, collecting garbage would take
// the processors' time and gain nothing.
const leastMemory = 48 << 20

// fitMemory has the Go runtime keep within the limit of the process's cgroup, or the kernel ends the
// process where garbage could have been collected. A fifth is left for what the runtime does not
// count, such as sockets and BPF maps. The environment's GOMEMLIMIT stands.
func fitMemory(memory limits.Limit) {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 && memory.Most < math.MaxInt64/5 {
		debug.SetMemoryLimit(max(leastMemory, int64(memory.Most)/5*4))
	}
}
