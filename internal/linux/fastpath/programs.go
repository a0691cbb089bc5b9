package fastpath

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
)

// programs are those of a Path. The kernel checks what a program may do when it is loaded, which takes
// it up to 0.1 s. So a program is loaded when it is first used, and its pin serves the next process.
type programs struct {
	tables *bpfMaps
	pins   *pins // nil: nothing outlives the process
	log    *slog.Logger

	mu     sync.Mutex
	loaded map[string]*ebpf.Program
	closed bool
}

// get returns a program by its name in fastpath.c.
func (s *programs) get(name string) (*ebpf.Program, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if program := s.loaded[name]; program != nil {
		return program, nil
	}
	if s.closed {
		return nil, os.ErrClosed
	}
	program, err := s.pinned(name)
	if err != nil {
		if program, err = s.load(name); err != nil {
			return nil, explain("load programs into the kernel", err)
		}
		s.pin(name, program)
	}
	if s.loaded == nil {
		s.loaded = make(map[string]*ebpf.Program)
	}
	s.loaded[name] = program
	return program, nil
}

// pinned returns a program that an earlier process of this version left, if it uses these tables.
func (s *programs) pinned(name string) (_ *ebpf.Program, err error) {
	if s.pins == nil {
		return nil, os.ErrNotExist
	}
	program, err := ebpf.LoadPinnedProgram(s.pins.programPath(name), nil)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			program.Close()
		}
	}()
	info, err := program.Info()
	if err != nil {
		return nil, err
	}
	uses, ok := info.MapIDs()
	known, err := s.ids()
	if err == nil && (!ok || slices.ContainsFunc(uses, func(id ebpf.MapID) bool { return !known[id] })) {
		err = ebpf.ErrMapIncompatible
	}
	return program, err
}

// ids returns the kernel's numbers of the tables.
func (s *programs) ids() (map[ebpf.MapID]bool, error) {
	known := make(map[ebpf.MapID]bool)
	err := each(s.tables, func(_ string, table *ebpf.Map) error {
		info, err := table.Info()
		if err != nil {
			return err
		}
		id, _ := info.ID()
		known[id] = true
		return nil
	})
	return known, err
}

// load has the kernel check a program.
func (s *programs) load(name string) (*ebpf.Program, error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(spec.Programs, func(other string, _ *ebpf.ProgramSpec) bool { return other != name })
	o := ebpf.CollectionOptions{MapReplacements: make(map[string]*ebpf.Map)}
	_ = each(s.tables, func(name string, table *ebpf.Map) error {
		o.MapReplacements[name] = table
		spec.Maps[name].MaxEntries = table.MaxEntries() // see Options.Capacity
		return nil
	})
	c, err := ebpf.NewCollectionWithOptions(spec, o)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.DetachProgram(name), nil
}

// pin keeps a program for the next process.
func (s *programs) pin(name string, program *ebpf.Program) {
	if s.pins == nil {
		return
	}
	if err := pinAgain(program, s.pins.programPath(name)); err != nil {
		s.log.Debug("the next process will load a program", "program", name, "reason", err)
	}
}

// pinAll pins all programs that are loaded, anew.
func (s *programs) pinAll() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, program := range s.loaded {
		err = errors.Join(err, pinAgain(program, s.pins.programPath(name)))
	}
	return err
}

func (s *programs) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, program := range s.loaded {
		program.Close()
	}
	s.loaded = nil
}
