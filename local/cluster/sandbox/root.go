package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxCopied bounds the directories that are rebuilt entry by entry to make
// room for a mount point.
const maxCopied = 500

// enter replaces this process's view of the file system by the one spec asks for.
func enter(spec Spec) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", spec.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting the new root: %w", err)
	}
	// Unbindable, or binding the directory it lies in would copy it into itself.
	if err := unix.Mount("", spec.Root, "", unix.MS_UNBINDABLE, ""); err != nil {
		return fmt.Errorf("making the new root unbindable: %w", err)
	}
	r := root{dir: spec.Root, ours: map[string]bool{spec.Root: true}}
	if err := r.fill("/", spec.Root, map[string]bool{"tmp": true, strings.TrimPrefix(Home, "/"): true}); err != nil {
		return err
	}
	for _, b := range spec.Binds {
		if err := r.bind(b); err != nil {
			return fmt.Errorf("mounting %s: %w", b.Target, err)
		}
	}
	for _, dir := range spec.Hide {
		at := filepath.Join(r.dir, dir)
		if fi, err := os.Stat(at); err != nil || !fi.IsDir() {
			continue // not part of the new root anyway
		}
		if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_RDONLY, "mode=755,size=4k"); err != nil {
			return fmt.Errorf("hiding %s: %w", dir, err)
		}
	}
	if err := unix.Mount("", r.dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("making the new root read-only: %w", err)
	}
	if err := pivot(r.dir); err != nil {
		return err
	}
	if err := os.Chdir(spec.Dir); err != nil {
		return fmt.Errorf("entering the working directory: %w", err)
	}
	return nil
}

// pivot makes dir the root. Pivoting is refused where the present root is the
// kernel's first file system; chroot is as good for our purpose.
func pivot(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("changing root: %w", err)
		}
		return os.Chdir("/")
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the old root: %w", err)
	}
	return os.Chdir("/")
}

// A root is a file tree under construction.
type root struct {
	dir  string
	ours map[string]bool // directories on our own tmpfs, where entries can be created
}

// fill shows every entry of from in the directory to, except those in skip.
func (r *root) fill(from, to string, skip map[string]bool) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if skip[e.Name()] {
			continue
		}
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if e.Type()&fs.ModeSymlink != 0 {
			link, err := os.Readlink(source)
			if err != nil {
				return err
			}
			if err := os.Symlink(link, target); err != nil {
				return err
			}
			continue
		}
		if err := place(target, e.IsDir()); err != nil {
			return err
		}
		err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, "")
		if err != nil && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("showing %s: %w", source, err)
		}
	}
	return nil
}

// place creates an empty mount point.
func place(path string, dir bool) error {
	if dir {
		return os.MkdirAll(path, 0o755)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func (r *root) bind(b Bind) error {
	fi, err := os.Stat(b.Source)
	if err != nil {
		return err
	}
	target, err := r.mountPoint(b.Target, fi.IsDir())
	if err != nil {
		return err
	}
	if err := unix.Mount(b.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if !b.ReadOnly {
		r.ours[target] = fi.IsDir() // mount points inside it are created in it, as every runtime does
		return nil
	}
	// In a user namespace the flags the source came with are locked and must
	// be repeated.
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return err
	}
	keep := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME)
	return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|keep, "")
}

// mountPoint finds or makes target below the new root and returns its path.
// Symbolic links are followed as the command would see them. A directory of the
// host is never written to: where an entry is missing in one, the directory is
// covered by a copy made of bind mounts, and the entry created in that.
func (r *root) mountPoint(target string, dir bool) (string, error) {
	at := r.dir
	rest := strings.Split(strings.Trim(filepath.Clean("/"+target), "/"), "/")
	for links := 0; len(rest) > 0; {
		next := filepath.Join(at, rest[0])
		fi, err := os.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if !r.ours[at] {
				if err := r.cover(at); err != nil {
					return "", err
				}
			}
			last := len(rest) == 1
			if err := place(next, !last || dir); err != nil {
				return "", err
			}
			r.ours[next] = !last
		case err != nil:
			return "", err
		case fi.Mode()&fs.ModeSymlink != 0:
			if links++; links > 40 {
				return "", fmt.Errorf("too many symbolic links")
			}
			link, err := os.Readlink(next)
			if err != nil {
				return "", err
			}
			if filepath.IsAbs(link) {
				at = r.dir
			}
			clean := filepath.Join(strings.TrimPrefix(at, r.dir)+"/", link)
			at, rest = r.dir, append(strings.Split(strings.Trim(clean, "/"), "/"), rest[1:]...)
			continue
		}
		at, rest = next, rest[1:]
	}
	return at, nil
}

// cover puts a writable copy of directory dir over it.
func (r *root) cover(dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > maxCopied {
		return fmt.Errorf("it does not exist on this host and %s has too many entries to make room in; mount elsewhere", strings.TrimPrefix(dir, r.dir))
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	r.ours[dir] = true
	return r.fill("/proc/self/fd/"+strconv.Itoa(fd), dir, nil)
}
