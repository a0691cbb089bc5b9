package guestimg

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vswitch/vswitch/internal/files/flock"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// An archive is what the cpio tool takes it for.
func TestCPIO(t *testing.T) {
	var buf bytes.Buffer
	c := newCPIO(&buf)
	c.Dir("a/b")
	c.Dir("a/c")
	c.File("a/b/file", 0o640, []byte("12345")) // not a multiple of four
	c.File("a/b/empty", 0o600, nil)
	c.Link("link", "a/b/file")
	c.CharDevice("console", 0o600, 5, 1)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if buf.Len()%4 != 0 {
		t.Errorf("the archive has %d bytes, not a multiple of 4", buf.Len())
	}

	busybox := testenv.Tool(t, "busybox")
	list := exec.Command(busybox, "cpio", "-tv")
	list.Stdin = bytes.NewReader(buf.Bytes())
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		got = append(got, f[0]+" "+strings.Join(f[5:], " "))
	}
	want := []string{
		"drwxr-xr-x a", "drwxr-xr-x a/b", "drwxr-xr-x a/c",
		"-rw-r----- a/b/file", "-rw------- a/b/empty", "lrwxrwxrwx link -> a/b/file", "crw------- console",
	}
	if !slices.Equal(got, want) {
		t.Errorf("cpio lists\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	dir := t.TempDir()
	unpack := exec.Command(busybox, "cpio", "-i", "a", "a/b", "a/b/file")
	unpack.Dir, unpack.Stdin = dir, bytes.NewReader(buf.Bytes())
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "a/b/file")); err != nil || string(data) != "12345" {
		t.Errorf("a/b/file is %q, %v", data, err)
	}
}

func TestCPIOReportsTheWriter(t *testing.T) {
	c := newCPIO(failing{})
	c.File("x", 0o644, []byte("x"))
	if err := c.Close(); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Close: %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, fs.ErrInvalid }

// bzImage makes the parts of a bzImage that unpackBzImage reads.
func bzImage(payload []byte) []byte {
	const sects, offset = 3, 64
	b := make([]byte, (sects+1)*512+offset)
	b[0x1f1] = sects
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(b[0x248:], offset)
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(payload)))
	return append(append(b, payload...), "what follows"...)
}

func pack(t *testing.T, tool string, data []byte) []byte {
	t.Helper()
	size := binary.LittleEndian.AppendUint32(nil, uint32(len(data)))
	if tool == "" {
		return append(slices.Clone(data), size...)
	}
	if tool == "gzip" {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(data)
		w.Close()
		return b.Bytes()
	}
	cmd := exec.Command(testenv.Tool(t, tool), "-c")
	if tool == "lz4" {
		cmd.Args[1] = "-lc" // the legacy frame is what the kernel's build makes
	}
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return append(out, size...)
}

func TestUnpackBzImage(t *testing.T) {
	elf := append([]byte("\x7fELF"), bytes.Repeat([]byte("kernel "), 1000)...)
	for _, tool := range []string{"", "gzip", "lz4", "xz", "zstd"} {
		t.Run("packed by "+tool, func(t *testing.T) {
			got, err := unpackBzImage(bzImage(pack(t, tool, elf)))
			if err != nil || !bytes.Equal(got, elf) {
				t.Errorf("got %d bytes, %v; want %d", len(got), err, len(elf))
			}
		})
	}
	good := bzImage(pack(t, "gzip", elf))
	for name, bad := range map[string][]byte{
		"empty":      {},
		"short":      good[:0x240],
		"cut off":    good[:len(good)-100],
		"no magic":   bytes.Replace(good, []byte("HdrS"), []byte("xxxx"), 1),
		"not an ELF": bzImage(pack(t, "gzip", []byte("plain text"))),
		"wrong size": bzImage(append(slices.Clone(elf), 1, 2, 3, 4)),
		"broken":     bzImage(append([]byte("\x1f\x8b"), elf...)),
	} {
		if _, err := unpackBzImage(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLibraries(t *testing.T) {
	const ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n" +
		"\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f64)\n" +
		"\t/lib64/ld-linux-x86-64.so.2 (0x00007f65)\n"
	got := libraries(ldd)
	want := []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestModuleFiles(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"net/virtio_net.ko", "net/8021q/8021q.ko.xz", "net/net-failover.ko.zst", "modules.builtin"} {
		path := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := moduleFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"virtio_net", "8021q", "net_failover"} {
		if files[m] == "" {
			t.Errorf("%s is not found", m)
		}
	}
	if len(files) != 3 {
		t.Errorf("found %v", files)
	}
}

// Of many who want a directory at once, one fills it; a failure leaves nothing.
func TestOnce(t *testing.T) {
	cache := t.TempDir()
	dir := filepath.Join(cache, "thing")
	broken := errors.New("broken")
	if err := once(dir, func(string) error { return broken }); !errors.Is(err, broken) {
		t.Fatalf("once: %v", err)
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) != 0 {
		t.Fatalf("a failure left %v, %v", left, err)
	}

	fills := 0 // guarded by the lock
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			lock, err := flock.Await(filepath.Join(cache, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			defer lock.Close()
			if err := once(dir, func(tmp string) error {
				fills++
				return os.WriteFile(filepath.Join(tmp, "x"), nil, 0o644)
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if fills != 1 {
		t.Errorf("filled %d times", fills)
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err != nil {
		t.Error(err)
	}
}

func TestCacheDir(t *testing.T) {
	t.Setenv("VSWITCH_CACHE", "")
	dir, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "go.mod")); err != nil {
		t.Errorf("%s is not beside go.mod", dir)
	}
	t.Setenv("VSWITCH_CACHE", "/some/where")
	if dir, err := CacheDir(); dir != "/some/where" || err != nil {
		t.Errorf("got %s, %v", dir, err)
	}
}
