// How Node reads `wukongimjssdk`: its files are modules without saying so, and they import each other without an ending. A
// bundler does not mind; Node is told here, so that the files run as the registry serves them.

const OF_SDK = '/node_modules/wukongimjssdk/';

export async function resolve(specifier, context, next) {
    if (context.parentURL?.includes(OF_SDK) && specifier.startsWith('.')) {
        return next(specifier === '.' ? './index.js' : `${specifier}.js`, context);
    }
    return next(specifier, context);
}

export async function load(url, context, next) {
    return next(url, url.includes(OF_SDK) ? { ...context, format: 'module' } : context);
}
