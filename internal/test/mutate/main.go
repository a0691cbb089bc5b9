// Command mutate measures the tests of a package: it changes one place of the package
// at a time, runs the tests on the change, and lists the changes that no test noticed.
//
//	go run ./internal/test/mutate -n 20 ./switch
//
// Tests of other packages, named by -tests, judge what the package's own do not notice.
//
// It leaves out what only a person or the allocator notices: calls of a logger, texts of errors,
// and the capacity of a slice. It counts as caught what makes the tests hang. Some
// changes that are left behave the same; it cannot tell them.
//
// It writes to no source file: the change is in an overlay, which GOFLAGS names, so that
// programs that tests build have it, too.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// memory bounds what the tests of one mutant may allocate: a loop that lost its end
// must not take the machine down before its time is up.
const memory = 4 << 30

func main() {
	o := options{}
	flag.IntVar(&o.n, "n", 0, "try `N` mutants, chosen at random; 0 is all")
	flag.Uint64Var(&o.seed, "seed", 0, "choose by this `seed`, as a former run printed it; 0 is a new one")
	flag.StringVar(&o.at, "at", "", "only mutants at `FILE[:LINE]`")
	flag.StringVar(&o.also, "tests", "", "run the tests of these `PACKAGES`, too, separated by commas: those that use the package")
	flag.IntVar(&o.jobs, "j", 1, "run the tests of `J` mutants at a time")
	flag.DurationVar(&o.timeout, "timeout", 0, "a mutant whose tests take longer is caught; 0 is ten times what they take without a change, and 10s")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: mutate [flags] PACKAGE [flags of go test]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	o.pkg, o.test = flag.Arg(0), flag.Args()[1:]
	limit := syscall.Rlimit{Cur: memory, Max: memory}
	err := syscall.Setrlimit(syscall.RLIMIT_DATA, &limit) // go test inherits it
	if err == nil {
		err = o.run(context.Background(), os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

type options struct {
	pkg     string
	test    []string // further flags of go test
	n       int
	seed    uint64
	at      string
	also    string // packages whose tests run, too
	jobs    int
	timeout time.Duration
}

// result is what the tests said of a mutant.
type result uint8

const (
	survived result = iota
	killed
	hung    // killed by the time limit, which may be too short on a busy machine
	unbuilt // the compiler refused it: it counts for nothing
)

func (o *options) run(ctx context.Context, w io.Writer) error {
	files, err := sources(ctx, o.pkg)
	if err != nil {
		return err
	}
	var all []mutant
	for _, f := range files {
		found, err := mutants(f)
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	if o.at != "" {
		all = slices.DeleteFunc(all, func(m mutant) bool { return !m.isAt(o.at) })
	}
	if len(all) == 0 {
		return errors.New("there is nothing to change")
	}

	start := time.Now()
	if r, out, err := o.try(ctx, nil, time.Hour); err != nil {
		return err
	} else if r != survived {
		return fmt.Errorf("the tests fail without a change:\n%s", out)
	}
	if o.timeout == 0 {
		o.timeout = 10*time.Since(start) + 10*time.Second
	}

	n := len(all)
	if o.n > 0 && o.n < n {
		n = o.n
		if o.seed == 0 {
			o.seed = rand.Uint64()
		}
		fmt.Fprintf(w, "%d of %d mutants, -seed %d\n", n, len(all), o.seed)
		rng := rand.New(rand.NewPCG(o.seed, 0))
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	counts, err := o.tryAll(ctx, w, all, n)
	if err != nil {
		return err
	}
	tried := counts.tried()
	if tried == 0 {
		return errors.New("no change builds")
	}
	fmt.Fprintf(w, "%s: %d of %d mutants survived (%d %%)", o.pkg, counts[survived], tried, 100*counts[survived]/tried)
	if counts[hung] > 0 {
		fmt.Fprintf(w, "; the tests of %d took more than %v", counts[hung], o.timeout.Round(time.Second))
	}
	fmt.Fprintln(w)
	return nil
}

// counts is how many mutants had each result.
type counts [unbuilt + 1]int

// tried returns how many were built.
func (c *counts) tried() int { return c[survived] + c[killed] + c[hung] }

// tryAll tries mutants in order until n of them were built, prints the survivors, and
// returns how many there were of each result.
func (o *options) tryAll(ctx context.Context, w io.Writer, all []mutant, n int) (c counts, err error) {
	var (
		mu      sync.Mutex
		next    int
		pending int
		done    = sync.NewCond(&mu)
		workers sync.WaitGroup
	)
	for range max(o.jobs, 1) {
		workers.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			for {
				for err == nil && pending > 0 && c.tried()+pending >= n {
					done.Wait() // one on its way may turn out not to build
				}
				if err != nil || next == len(all) || c.tried() >= n {
					return
				}
				m := &all[next]
				next++
				pending++
				mu.Unlock()
				r, _, failed := o.try(ctx, m, o.timeout)
				mu.Lock()
				pending--
				done.Broadcast()
				if failed != nil {
					err = failed
					return
				}
				c[r]++
				if r == survived {
					fmt.Fprintln(w, m)
				}
			}
		})
	}
	workers.Wait()
	return c, err
}

// users returns the packages whose tests run after the package's own.
func (o *options) users() []string {
	return strings.FieldsFunc(o.also, func(r rune) bool { return r == ',' })
}

// try runs the tests with one change, or with none: the package's own, and those of its
// users if they notice nothing.
func (o *options) try(ctx context.Context, m *mutant, limit time.Duration) (result, []byte, error) {
	args := []string{"test", "-count=1", "-vet=off", "-failfast", "-ldflags=-s -w", "-timeout", limit.String()}
	env := os.Environ()
	if m != nil {
		dir, err := os.MkdirTemp("", "mutate-")
		if err != nil {
			return 0, nil, err
		}
		defer os.RemoveAll(dir)
		changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
		names, err := json.Marshal(map[string]map[string]string{"Replace": {m.file.path: changed}})
		if err == nil {
			err = errors.Join(os.WriteFile(changed, m.source(), 0o600), os.WriteFile(overlay, names, 0o600))
		}
		if err != nil {
			return 0, nil, err
		}
		env = append(env, "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay)
	}
	args = append(args, o.test...)
	r, out, err := test(ctx, env, append(args, o.pkg), limit)
	if users := o.users(); r == survived && err == nil && len(users) > 0 {
		r, out, err = test(ctx, env, append(args, users...), limit)
	}
	return r, out, err
}

// test runs go test.
func test(ctx context.Context, env, args []string, limit time.Duration) (result, []byte, error) {
	// go test ends the tests by itself; a build takes time besides.
	ctx, cancel := context.WithTimeout(ctx, limit+5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = env
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return survived, out, nil
	} else if !errors.As(err, new(*exec.ExitError)) {
		return 0, out, err
	}
	return judge(out), out, nil
}

// judge says why go test failed.
func judge(out []byte) result {
	switch {
	case bytes.Contains(out, []byte("[build failed]")), bytes.Contains(out, []byte("[setup failed]")):
		return unbuilt
	case bytes.Contains(out, []byte("panic: test timed out after")):
		return hung
	}
	return killed
}

// sources returns the files of a package that the build takes, tests left out.
func sources(ctx context.Context, pkg string) ([]*source, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-json=Dir,GoFiles", pkg)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", pkg, err)
	}
	var listed struct {
		Dir     string
		GoFiles []string
	}
	if err := json.Unmarshal(out, &listed); err != nil {
		return nil, fmt.Errorf("go list %s: %w; name one package", pkg, err)
	}
	var files []*source
	for _, name := range listed.GoFiles {
		path := filepath.Join(listed.Dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(string(text), "// Code generated") {
			files = append(files, &source{path: path, text: text})
		}
	}
	return files, nil
}
